//! Prints the names in its registry, one a line, and the result of one call.

fn main() -> mobula::Result<()> {
    for item in mobula::registry() {
        println!(
            "{} {}",
            if item.actor { "actor" } else { "call" },
            item.name
        );
    }
    let _mobula = mobula::init()?;
    println!(
        "double(21) = {}",
        mobula::get(registry_dep::double::remote(21))?
    );
    // In a worker process: what the linker must keep for it is there.
    println!(
        "triple(14) = {} elsewhere",
        mobula::get(registry_dep::triple_there::remote(14))?
    );
    Ok(())
}
