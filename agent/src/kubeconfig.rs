//! Which kubeconfig leads to the API server, and so whom the agent is to it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use drover_kubernetes::ConnectError;

use crate::config::{Config, IdentityChoice};

/// Where EKS' images keep the kubelet's.
const OF_KUBELET: &str = "/var/lib/kubelet/kubeconfig";

/// What the operator said of it. What is kept is kept for all clones.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The file that was named, by flag or environment, or a context in one.
    named: Option<PathBuf>,
    is_named: bool,
    choice: IdentityChoice,
    of_kubelet: PathBuf,
    /// What was connected by first.
    kept: Arc<OnceLock<Option<PathBuf>>>,
}

impl Way {
    pub(crate) fn of(config: &Config) -> Self {
        let environment = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        Self {
            named: config.kubeconfig.clone(),
            is_named: config.kubeconfig.is_some() || config.context.is_some() || environment,
            choice: config.identity,
            of_kubelet: PathBuf::from(OF_KUBELET),
            kept: Arc::default(),
        }
    }

    /// One file, whatever else there is.
    #[cfg(test)]
    pub(crate) fn by(path: &std::path::Path) -> Self {
        Self {
            named: Some(path.to_owned()),
            is_named: true,
            choice: IdentityChoice::Auto,
            of_kubelet: PathBuf::from(OF_KUBELET),
            kept: Arc::default(),
        }
    }

    /// What an agent takes that was told nothing, where this is the kubelet's.
    #[cfg(test)]
    pub(crate) fn auto(of_kubelet: &std::path::Path) -> Self {
        Self {
            named: None,
            is_named: false,
            of_kubelet: of_kubelet.to_owned(),
            ..Self::by(of_kubelet)
        }
    }

    /// The file to be read; `None` for what the environment has: KUBECONFIG, `~/.kube/config` or the pod's service
    /// account. It is asked before each try to connect, because a kubelet's kubeconfig may appear late, and stays what
    /// it was once that was [kept](Self::keep).
    ///
    /// # Errors
    /// The kubelet's is there and can't be read, or not to its end: whom it makes the agent is not known yet.
    pub(crate) fn kubeconfig(&self) -> Result<Option<PathBuf>, ConnectError> {
        if let Some(kept) = self.kept.get() {
            return Ok(kept.clone());
        }
        if self.is_named {
            return Ok(self.named.clone());
        }
        let is_node = match self.choice {
            IdentityChoice::Node => true,
            IdentityChoice::ServiceAccount => false,
            IdentityChoice::Auto => drover_kubernetes::is_of_eks(&self.of_kubelet)?,
        };
        Ok(is_node.then(|| self.of_kubelet.clone()))
    }

    /// This one can be connected by. The first that could is kept: a file that is half written at some later look would
    /// make the agent somebody else.
    pub(crate) fn keep(&self, kubeconfig: Option<PathBuf>) {
        self.kept.get_or_init(|| kubeconfig);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    fn way(choice: IdentityChoice, of_kubelet: &Path) -> Way {
        Way { choice, ..Way::auto(of_kubelet) }
    }

    pub(crate) fn kubelets(folder: &Path, user: &str) -> PathBuf {
        let path = folder.join("kubeconfig");
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Config","current-context":"kubelet",
            "clusters":[{{"name":"c","cluster":{{"server":"https://eks.example"}}}}],
            "contexts":[{{"name":"kubelet","context":{{"cluster":"c","user":"kubelet"}}}}],
            "users":[{{"name":"other","user":{{"token":"t"}}}},{{"name":"kubelet","user":{user}}}]}}"#
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) const PLUGIN: &str = r#"{"exec":{"apiVersion":"client.authentication.k8s.io/v1beta1",
        "command":"/usr/bin/aws-iam-authenticator","args":["token","-i","one"]}}"#;

    #[test]
    fn on_eks_an_agent_is_its_node_unless_it_is_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = kubelets(folder.path(), PLUGIN);
        let found = |choice| way(choice, &path).kubeconfig().unwrap();
        assert_eq!(found(IdentityChoice::Auto).as_ref(), Some(&path));
        assert_eq!(found(IdentityChoice::Node).as_ref(), Some(&path));
        assert_eq!(found(IdentityChoice::ServiceAccount), None);
        let named = Way { is_named: true, ..way(IdentityChoice::Auto, &path) };
        assert_eq!(named.kubeconfig().unwrap(), None, "the environment names another");
        let other = Path::new("own");
        assert_eq!(Way::by(other).kubeconfig().unwrap().as_deref(), Some(other));
    }

    #[test]
    fn elsewhere_the_kubelets_kubeconfig_is_nobodys_default() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("kubeconfig");
        assert_eq!(way(IdentityChoice::Auto, &missing).kubeconfig().unwrap(), None);
        for user in [
            r#"{"client-certificate":"/var/lib/kubelet/pki/kubelet.pem"}"#,
            r#"{"exec":{"command":"other","args":["token"]}}"#,
        ] {
            let path = kubelets(folder.path(), user);
            assert_eq!(way(IdentityChoice::Auto, &path).kubeconfig().unwrap(), None, "{user}");
            assert_eq!(way(IdentityChoice::Node, &path).kubeconfig().unwrap(), Some(path));
        }
        std::fs::write(&missing, "not: [YAML").unwrap();
        let unread = way(IdentityChoice::Auto, &missing).kubeconfig();
        assert!(unread.is_err(), "it may be half written");
        let told = way(IdentityChoice::ServiceAccount, &missing).kubeconfig().unwrap();
        assert_eq!(told, None, "nobody needs to read it");
    }

    #[test]
    fn the_first_that_was_connected_by_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = kubelets(folder.path(), PLUGIN);
        let late = way(IdentityChoice::Auto, &path);
        late.keep(late.kubeconfig().unwrap());
        std::fs::write(&path, "apiVersion: v1\nclus").unwrap();
        assert_eq!(late.kubeconfig().unwrap().as_ref(), Some(&path), "half written");
        std::fs::remove_file(&path).unwrap();
        let early = way(IdentityChoice::Auto, &path);
        early.keep(early.kubeconfig().unwrap());
        kubelets(folder.path(), PLUGIN);
        assert_eq!(early.kubeconfig().unwrap(), None, "whom the agent was first");
    }
}
