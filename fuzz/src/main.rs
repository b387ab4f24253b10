//! Writes the seeds and the dictionary of every target into a folder: `prepare FOLDER`.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: prepare FOLDER"))?;
    for name in tollgate_fuzz::names() {
        let seeds = folder.join("seeds").join(name);
        fs::create_dir_all(&seeds)?;
        for (number, seed) in tollgate_fuzz::seeds(name).iter().enumerate() {
            fs::write(seeds.join(number.to_string()), seed)?;
        }
        let words = folder.join(format!("{name}.dict"));
        fs::write(words, tollgate_fuzz::dictionary(name))?;
        println!("{name}");
    }
    Ok(())
}
