//! Writes the plots of the guide.

fn main() -> std::io::Result<()> {
    for (path, svg) in traffik_guide::plots::all() {
        std::fs::write(&path, svg)?;
        println!("{}", path.display());
    }
    Ok(())
}
