//! The tables of commands as the documentation shows them.

use super::refused::{BEYOND_REDIS, REDIS_COUNTED, REFUSED};
use super::spec::{Family, Spec, Split};
use super::subcommands::{SUBCOMMANDS, subcommands_of};
use super::table::TABLE;
use std::fmt::Write;

/// All commands with their subcommands as a Markdown table, by family, in the order of the table; how many
/// of Redis' that are, and those that are refused.
pub fn markdown() -> String {
    let mut families: Vec<Family> = TABLE.iter().map(|spec| spec.family).collect();
    families.sort_unstable();
    families.dedup();
    let mut out = String::from(
        "| command | what it does | keys in several groups | between clusters |\n|---|---|---|---|\n",
    );
    for family in families {
        for spec in TABLE.iter().filter(|spec| spec.family == family) {
            rows(spec, &mut out);
        }
    }
    refused(&mut out);
    out
}

/// A command, and behind it its subcommands: between clusters they are what it is.
fn rows(spec: &Spec, out: &mut String) {
    let split = match spec.split {
        Split::No => "",
        Split::Values | Split::Count | Split::Pairs => {
            "split on the plain port: each group's part is atomic, the whole is not"
        }
    };
    let own = (spec.name, spec.summary);
    let subs = subcommands_of(spec.id).map(|sub| (sub.full_name, sub.summary));
    for (name, summary) in std::iter::once(own).chain(subs) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {summary} | {split} | {} |",
            shown(name),
            spec.between_clusters
        );
    }
}

fn shown(name: &str) -> String {
    name.replace('|', " ").to_ascii_uppercase()
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{}`", shown(name))).collect::<Vec<_>>().join(", ")
}

fn refused(out: &mut String) {
    let supported = TABLE.len() + SUBCOMMANDS.len() - BEYOND_REDIS.len();
    let refused: usize = REFUSED.iter().map(|refused| refused.names.len()).sum();
    let all = supported + refused;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "\n{supported} of the {all} commands and subcommands of Redis {REDIS_COUNTED} are supported, and \
         beyond them {}. The other {refused} are refused:\n\n\
         | about | why they are refused | commands |\n|---|---|---|\n",
        list(BEYOND_REDIS)
    );
    for refused in REFUSED {
        let _ = writeln!(out, "| {} | {} | {} |", refused.topic, refused.why, list(refused.names));
    }
}

#[cfg(test)]
mod tests {
    use super::markdown;

    const BEGIN: &str = "<!-- commands -->\n";
    const END: &str = "<!-- /commands -->";

    /// FLOTILLA_UPDATE_README=1 rewrites the table instead of comparing it.
    #[test]
    fn the_readme_shows_this_table() {
        // Tests run in their crate's directory; a path of the build would be another clone's when
        // clones share a target directory.
        let path = "../README.md";
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
