//! The program `image-builder`: all of it is in the library, where the fuzz target reaches it, too.

use std::process::ExitCode;

fn main() -> ExitCode {
    image_builder::run_program()
}
