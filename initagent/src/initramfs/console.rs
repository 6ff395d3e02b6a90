//! What people at the machine read, and what the kernel's log keeps for later.
//!
//! Knows both places. Refuses to fail: a machine without a console still boots.
//!
//! Documentation: <https://docs.kernel.org/admin-guide/serial-console.html> and, for the numbers before a
//! message, `Documentation/ABI/testing/dev-kmsg`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Stdio;

const LOG: &str = "/dev/kmsg";

/// Says something on the console, whatever the kernel's log level, and keeps it.
pub(super) fn print_to_console(sentence: &str) {
    // With carriage returns: nobody has set up the terminal yet. Past the kernel's log, which `quiet` keeps
    // from the console.
    append_to_file("/dev/console", &format!("\r\ncatamaran: {sentence}\r\n"));
    // 7: kept, but not printed a second time.
    append_to_file(LOG, &format!("<7>catamaran: {sentence}"));
}

/// Keeps something in the kernel's log, where the journal finds it.
pub(super) fn write_kernel_log(sentence: &str) {
    append_to_file(LOG, &format!("<6>catamaran: {sentence}"));
}

/// Where a program says what the kernel's log is to keep.
pub(super) fn kernel_log_stdio() -> Stdio {
    OpenOptions::new().write(true).open(LOG).map_or_else(|_| Stdio::null(), Stdio::from)
}

/// A message that can not be written has nobody to be told about.
fn append_to_file(path: &str, text: &str) {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    drop(written);
}
