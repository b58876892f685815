//! The file as TOML says it, with the line of everything, before anything is believed.
//!
//! Every field may be missing and numbers and names are not looked at, so that what is wrong with
//! them can be told all at once by `validate`. Only what is no TOML, an unknown key or a value of
//! the wrong type ends here, at the first.

use super::problem::Problem;
use serde::Deserialize;
use toml::Spanned;

/// A value and the line where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub line: usize,
    pub value: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    pub mode: Option<Spanned<String>>,
    #[serde(default)]
    pub regions: Vec<Spanned<String>>,
    #[serde(default)]
    pub wants: RawWants,
    #[serde(default, rename = "datacenter")]
    pub datacenters: Vec<Spanned<RawDatacenter>>,
    #[serde(default, rename = "rtt")]
    pub rtts: Vec<Spanned<RawRtt>>,
    #[serde(default, rename = "cluster")]
    pub clusters: Vec<Spanned<RawCluster>>,
    #[serde(default, rename = "link")]
    pub links: Vec<Spanned<RawLink>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWants {
    pub rpo: Option<Spanned<String>>,
    pub write_latency: Option<Spanned<String>>,
    #[serde(default)]
    pub survive: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDatacenter {
    pub name: Option<Spanned<String>>,
    pub region: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRtt {
    #[serde(default)]
    pub between: Vec<Spanned<String>>,
    pub rtt: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCluster {
    pub id: Option<Spanned<i64>>,
    pub name: Option<Spanned<String>>,
    #[serde(default)]
    pub datacenters: Vec<Spanned<String>>,
    #[serde(default)]
    pub pd: Vec<Spanned<String>>,
    #[serde(default)]
    pub syncers: Vec<Spanned<String>>,
    pub replicas: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLink {
    pub from: Option<Spanned<String>>,
    pub to: Option<Spanned<String>>,
}

/// Turns byte positions into lines.
pub(crate) struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub fn of(text: &str) -> Lines {
        let after = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Lines { starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line, from 1, that holds byte `position`.
    pub fn at(&self, position: usize) -> usize {
        self.starts.partition_point(|start| *start <= position)
    }

    /// A spanned value with its line.
    pub fn locate<'a, T>(&self, spanned: &'a Spanned<T>) -> At<&'a T> {
        At { line: self.at(spanned.span().start), value: spanned.get_ref() }
    }
}

/// Reads the TOML.
pub(crate) fn read(text: &str, lines: &Lines) -> Result<RawFile, Problem> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        // The parser's text can run over several lines; a problem is one.
        let message = error.message().split('\n').collect::<Vec<_>>().join(" ");
        let remedy = if message.starts_with("unknown field") {
            "correct its spelling or delete it"
        } else {
            "see deploy/examples/topology.toml"
        };
        Problem { line, message, remedy: remedy.to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_lines() {
        let lines = Lines::of("a\nbc\n\nd");
        let found: Vec<usize> = (0..8).map(|i| lines.at(i)).collect();
        assert_eq!(found, [1, 1, 2, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn tables_know_the_line_of_their_header() {
        let text = "\n[[cluster]]\nid = 1\n\n[[cluster]]\n# nothing\n[[link]]\nfrom = \"a\"\n";
        let lines = Lines::of(text);
        let file = read(text, &lines).unwrap_or_else(|p| panic!("{p}"));
        let found: Vec<usize> = file.clusters.iter().map(|c| lines.locate(c).line).collect();
        assert_eq!(found, [2, 5]);
        assert_eq!(lines.locate(file.links[0].get_ref().from.as_ref().unwrap()).line, 8);
    }
}
