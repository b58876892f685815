//! The table of commands as the documentation shows it.

use super::spec::{Family, Split};
use super::table::TABLE;
use std::fmt::Write;

/// All commands as a Markdown table, by family, in the order of the table.
pub fn markdown() -> String {
    let mut families: Vec<Family> = TABLE.iter().map(|spec| spec.family).collect();
    families.sort_unstable();
    families.dedup();
    let mut out = String::from(
        "| command | what it does | keys in several groups | between clusters |\n|---|---|---|---|\n",
    );
    for family in families {
        for spec in TABLE.iter().filter(|spec| spec.family == family) {
            let split = match spec.split {
                Split::No => "",
                Split::Values | Split::Count | Split::Pairs => {
                    "split on the plain port: each group's part is atomic, the whole is not"
                }
            };
            let name = spec.name.to_ascii_uppercase();
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| `{name}` | {} | {split} | {} |",
                spec.summary, spec.between_clusters
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::markdown;

    const BEGIN: &str = "<!-- commands -->\n";
    const END: &str = "<!-- /commands -->";

    /// FLOTILLA_UPDATE_README=1 rewrites the table instead of comparing it.
    #[test]
    fn the_readme_shows_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let text = std::fs::read_to_string(path).unwrap();
        let begin = text.find(BEGIN).expect("README.md has a place for the table") + BEGIN.len();
        let end = begin + text[begin..].find(END).expect("and an end of it");
        if std::env::var_os("FLOTILLA_UPDATE_README").is_some() {
            let updated = format!("{}{}{}", &text[..begin], markdown(), &text[end..]);
            std::fs::write(path, updated).unwrap();
            return;
        }
        let same = text[begin..end] == markdown();
        assert!(same, "README.md is behind: run FLOTILLA_UPDATE_README=1 cargo test the_readme");
    }
}
