//! Certificates and tokens: how the replicas know each other, and whom the API lets in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drover_tls::CertificateFiles;

use super::{Args, ConfigError, Setting};

/// How the replicas know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftSecurity {
    /// There are no others, and nothing listens.
    Alone,
    /// Not at all.
    Insecure,
    /// By certificates of one authority.
    Mutual(CertificateFiles),
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for AccountName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for AccountName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not of the form NAMESPACE/NAME")),
        }
    }
}

/// How Raft is secured. A group needs certificates, unless it is told aloud that it has none.
pub(super) fn raft(args: &Args, replicas: usize) -> Result<RaftSecurity, ConfigError> {
    let setting = Setting("--raft-cert", "DROVER_RAFT_CERT");
    match (given(&args.raft_cert), given(&args.raft_key), given(&args.raft_ca)) {
        (Some(certificate), Some(key), Some(authority)) => {
            if args.raft_insecure {
                return Err(Setting("--raft-insecure", "DROVER_RAFT_INSECURE")
                    .error("there are certificates, too"));
            }
            Ok(RaftSecurity::Mutual(CertificateFiles { certificate, key, authority }))
        }
        (None, None, None) if args.raft_insecure => Ok(RaftSecurity::Insecure),
        (None, None, None) if replicas == 1 => Ok(RaftSecurity::Alone),
        (None, None, None) => Err(setting.error(
            "replicas know each other by certificates: --raft-cert, --raft-key and --raft-ca must \
             be set (or --raft-insecure, on a network where nobody else is)",
        )),
        _ => Err(setting.error("--raft-cert, --raft-key and --raft-ca go together")),
    }
}

/// The API's certificate.
pub(super) fn api(args: &Args) -> Result<Option<CertificateFiles>, ConfigError> {
    let setting = Setting("--api-cert", "DROVER_API_CERT");
    match (given(&args.api_cert), given(&args.api_key)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let authority =
                given(&args.api_ca).or_else(|| given(&args.raft_ca)).ok_or_else(|| {
                    Setting("--api-ca", "DROVER_API_CA").error(
                        "the authority must be set: followers pass requests on to the leader",
                    )
                })?;
            Ok(Some(CertificateFiles { certificate, key, authority }))
        }
        _ => Err(setting.error("--api-cert and --api-key go together")),
    }
}

/// The agents' account; `None` if everybody is believed.
pub(super) fn account(args: &Args) -> Result<Option<AccountName>, ConfigError> {
    if args.api_insecure {
        return Ok(None);
    }
    let setting = Setting("--agent-account", "DROVER_AGENT_ACCOUNT");
    args.agent_account.parse().map(Some).map_err(|reason: String| setting.error(reason))
}

/// An empty path is none: a manifest may set the variable and leave it empty.
fn given(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| !path.as_os_str().is_empty())
}
