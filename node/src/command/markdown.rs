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
