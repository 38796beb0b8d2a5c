//! The files that a connection is made of: kubelets, for one, put new certificates in the place of old ones.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;
use tokio::io::AsyncReadExt;

/// Kubeconfigs, certificates and keys are a fraction of it.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A kubeconfig, and the certificates and keys that it names, as they were when they were read. A client reads
/// them when it is built and never again; tokens and what a service account is given it reads by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: BTreeMap<PathBuf, Option<u64>>,
    has_kubeconfig: bool,
}

impl Sources {
    /// What [`connect`](crate::connect) reads for the same arguments. What can't be read is in it, too: it may
    /// appear.
    pub async fn read(kubeconfig: Option<&Path>, context: Option<&str>) -> Self {
        let files = kubeconfig.map_or_else(of_environment, |path| vec![path.to_owned()]);
        let read = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let has_kubeconfig = read.is_ok();
        let named = read.map(|config| named(&config, context)).unwrap_or_default();
        let files = digests(files.into_iter().chain(named)).await;
        Self { files, has_kubeconfig }
    }

    /// Whether there is a kubeconfig that can be read. Where there is none a connection by the environment is the
    /// pod's service account's.
    pub fn have_kubeconfig(&self) -> bool {
        self.has_kubeconfig
    }

    /// Whether the files are others by now. One that is missing is not: it's on its way from old to new.
    pub async fn changed(&self) -> bool {
        let now = digests(self.files.keys().cloned()).await;
        let mut pairs = self.files.iter().zip(now.values());
        pairs.any(|((_, before), now)| now.is_some() && before != now)
    }
}

/// Where `kube` looks for a kubeconfig that is not named.
fn of_environment() -> Vec<PathBuf> {
    let named = named_by(std::env::var_os("KUBECONFIG"));
    if !named.is_empty() {
        return named;
    }
    default_kubeconfig().into_iter().collect()
}

/// The files of `KUBECONFIG`.
fn named_by(kubeconfig: Option<OsString>) -> Vec<PathBuf> {
    let kubeconfig = kubeconfig.unwrap_or_default();
    let paths = std::env::split_paths(&kubeconfig);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

fn default_kubeconfig() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".kube/config"))
}

/// Whether the environment leads to a kubeconfig: one that is named, or the default one, which is there. Otherwise it may
/// lead to a pod's service account.
pub(crate) fn environment_has_kubeconfig() -> bool {
    leads_to_kubeconfig(std::env::var_os("KUBECONFIG"), default_kubeconfig())
}

/// What may not be looked at is not there.
fn leads_to_kubeconfig(kubeconfig: Option<OsString>, default: Option<PathBuf>) -> bool {
    let is_file = |path: PathBuf| std::fs::metadata(path).is_ok_and(|file| file.is_file());
    !named_by(kubeconfig).is_empty() || default.is_some_and(is_file)
}

/// The files that a context's cluster and user name.
fn named(config: &Kubeconfig, context: Option<&str>) -> Vec<PathBuf> {
    let wanted = context.or(config.current_context.as_deref());
    let context = config.contexts.iter().find(|one| Some(one.name.as_str()) == wanted);
    let Some(context) = context.and_then(|one| one.context.as_ref()) else { return Vec::new() };
    let cluster = config.clusters.iter().find(|one| one.name == context.cluster);
    let cluster = cluster.and_then(|one| one.cluster.as_ref());
    let user = config.auth_infos.iter().find(|one| Some(&one.name) == context.user.as_ref());
    let user = user.and_then(|one| one.auth_info.as_ref());
    [
        cluster.and_then(|cluster| cluster.certificate_authority.as_ref()),
        user.and_then(|user| user.client_certificate.as_ref()),
        user.and_then(|user| user.client_key.as_ref()),
    ]
    .into_iter()
    .flatten()
    .map(PathBuf::from)
    .collect()
}

async fn digests(files: impl Iterator<Item = PathBuf>) -> BTreeMap<PathBuf, Option<u64>> {
    let mut read = BTreeMap::new();
    for file in files {
        let content = digest(&file).await;
        read.insert(file, content);
    }
    read
}

/// What tells one content from another; there are keys among them, which are not kept.
async fn digest(path: &Path) -> Option<u64> {
    let file = tokio::fs::File::open(path).await.ok()?;
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).await.ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_context_names_is_looked_at_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let config = r#"{"apiVersion":"v1","kind":"Config","current-context":"kubelet",
            "clusters":[{"name":"c","cluster":{"server":"https://eks","certificate-authority":"ca.crt"}}],
            "contexts":[{"name":"kubelet","context":{"cluster":"c","user":"kubelet"}},
                {"name":"other","context":{"cluster":"c","user":"other"}}],
            "users":[{"name":"kubelet","user":{"client-certificate":"current.pem","client-key":"current.pem"}},
                {"name":"other","user":{"client-certificate":"other.pem","client-key":"other.pem"}}]}"#;
        for (name, content) in
            [("config", config), ("ca.crt", "1"), ("first.pem", "1"), ("other.pem", "1")]
        {
            std::fs::write(path(name), content).unwrap();
        }
        // So the kubelet does it.
        std::os::unix::fs::symlink("first.pem", path("current.pem")).unwrap();
        let read = async |context| Sources::read(Some(&path("config")), context).await;
        let (current, other) = (read(None).await, read(Some("other")).await);
        assert!(!current.changed().await && !other.changed().await);
        std::fs::write(path("second.pem"), "2").unwrap();
        std::fs::remove_file(path("current.pem")).unwrap();
        assert!(!current.changed().await, "the new is not there yet");
        std::os::unix::fs::symlink("second.pem", path("current.pem")).unwrap();
        assert!(current.changed().await && !other.changed().await);
        let current = read(None).await;
        std::fs::write(path("ca.crt"), "2").unwrap();
        assert!(current.changed().await && other.changed().await);
        let current = read(None).await;
        std::fs::write(path("config"), config.replace("current.pem", "other.pem")).unwrap();
        assert!(current.changed().await);
    }

    #[tokio::test]
    async fn what_is_not_there_yet_may_appear() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let sources = Sources::read(Some(&path), None).await;
        assert!(!sources.changed().await && !sources.have_kubeconfig());
        std::fs::write(&path, "{}").unwrap();
        assert!(sources.changed().await);
        assert!(Sources::read(Some(&path), None).await.have_kubeconfig());
    }

    #[test]
    fn what_is_named_or_there_is_no_service_account_however_it_looks() {
        let folder = tempfile::tempdir().unwrap();
        let default = folder.path().join("config");
        let leads = |named: Option<&str>| {
            leads_to_kubeconfig(named.map(OsString::from), Some(default.clone()))
        };
        assert!(!leads(None) && !leads(Some("")) && !leads(Some(":")));
        assert!(leads(Some("/no/such/file")), "it is named");
        std::fs::write(&default, "apiVersion: v1\nclus").unwrap();
        assert!(leads(None), "it is there");
    }
}
