//! `flotilla cert`: makes and shows the certificates with which processes know each other.
//!
//! ```text
//! flotilla cert authority --out ca/
//! flotilla cert issue --authority ca/ --cluster 1 --role node --name east-n1 --out certs/
//! flotilla cert show certs/node-east-n1.pem
//! ```
//! Nothing is ever overwritten. Private keys are readable by their owner alone and never printed.

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use flotilla_node::tls::Tls;
use flotilla_node::tls::dev::{Authority, Request};
use flotilla_topology::ids::{ClusterId, Identity, Role};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What `flotilla cert` takes.
#[derive(Debug, Args)]
pub struct CertArgs {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority: ca.pem for everybody, ca.key to be kept away from all processes.
    Authority {
        /// Directory for ca.pem and ca.key.
        #[arg(long)]
        out: PathBuf,
        /// Name in the certificate.
        #[arg(long, default_value = "Flotilla authority")]
        name: String,
        /// How many days it is valid.
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Issue the certificate of one process.
    Issue(IssueArgs),
    /// Show what a certificate says. Exit code 1 if no process would accept it.
    Show {
        /// A certificate, PEM.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct IssueArgs {
    /// Directory with ca.pem and ca.key.
    #[arg(long)]
    authority: PathBuf,
    /// Cluster id, 1 to 255.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    cluster: u8,
    /// What the process is.
    #[arg(long)]
    role: RoleArg,
    /// Its name, unique among the processes of that role in the cluster.
    #[arg(long)]
    name: String,
    /// Directory for `<role>-<name>.pem`, `<role>-<name>.key` and `ca.pem`.
    #[arg(long)]
    out: PathBuf,
    /// A host name for tools that look at it; Flotilla itself does not. May be repeated.
    #[arg(long)]
    dns: Vec<String>,
    /// An address for tools that look at it. May be repeated.
    #[arg(long)]
    ip: Vec<IpAddr>,
    /// How many days it is valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    Node,
    Syncer,
    Pd,
    Client,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Node => Role::Node,
            RoleArg::Syncer => Role::Syncer,
            RoleArg::Pd => Role::Pd,
            RoleArg::Client => Role::Client,
        }
    }
}

/// Runs `flotilla cert`. An error is one line for the user.
pub fn run(args: CertArgs) -> anyhow::Result<ExitCode> {
    let (text, value, code) = match args.command {
        Command::Authority { out, name, days } => authority(&out, &name, days)?,
        Command::Issue(issue_args) => issue(issue_args)?,
        Command::Show { file } => show(&file)?,
    };
    if args.json {
        println!("{value}");
    } else {
        println!("{text}");
    }
    Ok(code)
}

type Outcome = (String, serde_json::Value, ExitCode);

fn authority(out: &Path, name: &str, days: u32) -> anyhow::Result<Outcome> {
    Authority::create(name, days)?.save(out)?;
    let (cert, key) = (out.join("ca.pem"), out.join("ca.key"));
    let text = format!(
        "{} (give it to every process)\n{} (whoever has it can be any process: keep it offline)",
        cert.display(),
        key.display()
    );
    Ok((text, json!({"ca": cert, "key": key}), ExitCode::SUCCESS))
}

fn issue(args: IssueArgs) -> anyhow::Result<Outcome> {
    let identity = Identity {
        cluster: ClusterId(args.cluster),
        role: args.role.into(),
        name: checked_name(args.name)?,
    };
    let authority = Authority::load(&args.authority)?;
    let uri = identity.to_string();
    let request = Request { identity, dns: args.dns, ips: args.ip, days: args.days };
    let files = authority.issue_files(&request, &args.out)?;
    let text =
        format!("{uri}\n{}\n{}\n{}", files.cert.display(), files.key.display(), files.ca.display());
    let value = json!({
        "identity": uri, "cert": files.cert, "key": files.key, "ca": files.ca,
    });
    Ok((text, value, ExitCode::SUCCESS))
}

/// Names become file names, metric labels and parts of URIs.
fn checked_name(name: String) -> anyhow::Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) || name.starts_with('.') {
        bail!("the name {name:?} cannot be used: give 1 to 63 letters, digits, `-`, `_` or `.`");
    }
    Ok(name)
}

fn show(file: &Path) -> anyhow::Result<Outcome> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Ok(der) = CertificateDer::from_pem_slice(&pem) else {
        bail!("{} has no certificate in PEM form: give a .pem file", file.display());
    };
    let Ok((_, cert)) = X509Certificate::from_der(&der) else {
        bail!("{} is not an X.509 certificate", file.display());
    };
    let identity = Tls::peer_identity(std::slice::from_ref(&der));
    let (from, until) = (cert.validity().not_before, cert.validity().not_after);
    let now_s = i64::try_from(flotilla_node::clock::wall_ms() / 1000)?;
    let days_left = (until.timestamp() - now_s).div_euclid(24 * 3600);
    let valid = from.timestamp() <= now_s && now_s <= until.timestamp();
    let who = match &identity {
        Ok(identity) => identity.to_string(),
        Err(_) if cert.is_ca() => "an authority".to_owned(),
        Err(error) => error.to_string(),
    };
    let text = format!(
        "identity    {who}\nsubject     {}\nissuer      {}\nvalid from  {from}\nvalid until {until} \
         ({days_left} days left)\nnames       {}",
        cert.subject(),
        cert.issuer(),
        names(&cert).join(", "),
    );
    let value = json!({
        "identity": identity.as_ref().ok().map(ToString::to_string),
        "authority": cert.is_ca(),
        "subject": cert.subject().to_string(),
        "issuer": cert.issuer().to_string(),
        "valid_from_s": from.timestamp(),
        "valid_until_s": until.timestamp(),
        "valid": valid,
        "days_left": days_left,
        "names": names(&cert),
    });
    let usable = valid && (identity.is_ok() || cert.is_ca());
    Ok((text, value, if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

fn names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let general = &names.value.general_names;
    general.iter().map(name).collect()
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(dns) => (*dns).to_owned(),
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::IPAddress(bytes) => address(bytes),
        other => other.to_string(),
    }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return IpAddr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => IpAddr::from(v6).to_string(),
        Err(_) => format!("{bytes:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: CertArgs,
    }

    fn flotilla_cert(args: &[&str]) -> anyhow::Result<ExitCode> {
        let cli = Cli::try_parse_from([&["cert"], args].concat())?;
        run(cli.args)
    }

    #[test]
    fn an_authority_issues_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("certs"));
        let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
        flotilla_cert(&["authority", "--out", ca]).unwrap();
        let again = flotilla_cert(&["authority", "--out", ca]).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");

        let issue = |cluster: &str, name: &str| {
            flotilla_cert(&[
                "issue",
                "--authority",
                ca,
                "--cluster",
                cluster,
                "--role",
                "node",
                "--name",
                name,
                "--out",
                out,
                "--dns",
                "east.example",
                "--ip",
                "10.0.0.7",
            ])
        };
        issue("1", "east-n1").unwrap();
        issue("1", "east-n2").unwrap();
        assert!(issue("1", "east-n1").unwrap_err().to_string().contains("exists already"));
        assert!(issue("0", "east-n3").is_err());
        assert!(issue("1", "../n3").unwrap_err().to_string().contains("cannot be used"));

        let cert = format!("{out}/node-east-n1.pem");
        let (text, value, _) = show(Path::new(&cert)).unwrap();
        assert!(text.contains("flotilla://1/node/east-n1"), "{text}");
        assert_eq!(value["identity"], "flotilla://1/node/east-n1");
        assert_eq!(value["valid"], true);
        let days_left = value["days_left"].as_i64().unwrap();
        assert!((364..=365).contains(&days_left), "{days_left}"); // 365 within the first second
        let names = value["names"].to_string();
        assert!(names.contains("east.example") && names.contains("10.0.0.7"), "{names}");
        for key in [format!("{out}/node-east-n1.key"), format!("{ca}/ca.key")] {
            let mode = std::fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let no_pem = show(Path::new(&format!("{out}/node-east-n1.key"))).unwrap_err();
        assert!(no_pem.to_string().contains("no certificate"), "{no_pem}");
    }
}
