//! Writes the dm-verity tree of a file, as `veritysetup format --no-superblock` does: what `ci/bench`
//! times against it. Usage: verity DATA TREE
#![expect(clippy::print_stdout, reason = "it prints the root hash")]

use std::error::Error;
use std::fs::{self, File};

use image_format::verity;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(data), Some(tree)) = (arguments.next(), arguments.next()) else {
        return Err("usage: verity DATA TREE".into());
    };
    let data = File::open(data)?;
    let size = data.metadata()?.len();
    let threads = std::thread::available_parallelism()?.get();
    let built = verity::build_tree(&data, size, &[0; 32], threads)?;
    fs::write(tree, built.bytes)?;
    println!("{}", built.root_hash);
    Ok(())
}
