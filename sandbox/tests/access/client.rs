//! A sandbox, and whoever asks it over HTTP.

use std::path::Path;

use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};

pub(super) const ADMINISTRATOR: &str = "sandbox-admin";

pub(super) struct Client {
    pub(super) sandbox: Sandbox,
    pub(super) http: reqwest::Client,
}

impl Client {
    pub(super) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        Self { sandbox, http: reqwest::Client::new() }
    }

    /// The same with what agents may do, and two nodes.
    pub(super) async fn start_with_agents() -> Self {
        let client = Self::start().await;
        for file in ["00-namespace.yaml", "10-agent-rbac.yaml", "11-agent-admission.yaml"] {
            client.install(file).await;
        }
        for node in ["one", "two"] {
            client.node(node).await;
        }
        client
    }

    /// Sends a request with a token; its status and body.
    pub(super) async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let url = format!("{}{path}", self.sandbox.endpoints().kubernetes);
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request =
            self.http.request(method.parse().unwrap(), url).header("content-type", kind);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        (code, response.json().await.unwrap_or_default())
    }

    pub(super) async fn create(&self, path: &str, body: Value) -> Value {
        let (code, made) = self.send(ADMINISTRATOR, "POST", path, &body).await;
        assert_eq!(code, 201, "{path}: {made}");
        made
    }

    /// Everything in a file of `deploy/manifests`.
    pub(super) async fn install(&self, file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let (api, plural) = match object["kind"].as_str().unwrap() {
                "Namespace" => ("/api/v1", "namespaces"),
                "ServiceAccount" => ("/api/v1/namespaces/drover-system", "serviceaccounts"),
                "Role" => ("/apis/rbac.authorization.k8s.io/v1/namespaces/default", "roles"),
                "RoleBinding" => {
                    ("/apis/rbac.authorization.k8s.io/v1/namespaces/default", "rolebindings")
                }
                "ClusterRole" => ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
                "ClusterRoleBinding" => {
                    ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings")
                }
                "ValidatingAdmissionPolicy" => {
                    ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies")
                }
                "ValidatingAdmissionPolicyBinding" => {
                    ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings")
                }
                other => panic!("{other}"),
            };
            self.create(&format!("{api}/{plural}"), object).await;
        }
    }

    pub(super) async fn node(&self, name: &str) {
        self.create("/api/v1/nodes", json!({"kind": "Node", "metadata": {"name": name}})).await;
    }

    pub(super) async fn pod(&self, name: &str, node: &str, account: &str) {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": node, "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}});
        self.create("/api/v1/namespaces/drover-system/pods", pod).await;
    }

    /// A token of the agent's account, bound to a pod.
    pub(super) async fn token(&self, pod: &str, audience: Option<&str>) -> String {
        let path = "/api/v1/namespaces/drover-system/serviceaccounts/drover-agent/token";
        let spec = json!({"audiences": audience.into_iter().collect::<Vec<_>>(),
            "boundObjectRef": {"kind": "Pod", "name": pod, "apiVersion": "v1"}});
        let made = self.create(path, json!({"spec": spec})).await;
        made["status"]["token"].as_str().unwrap().to_owned()
    }
}
