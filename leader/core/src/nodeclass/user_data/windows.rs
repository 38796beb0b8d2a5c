//! Windows: a PowerShell script that calls EKS's bootstrap script.

use drover_common::crd::Ec2NodeClassSpec;

use super::arguments::arguments;
use crate::nodeclass::template::{ClusterSettings, NodeRegistration};

/// The user's script and the bootstrap call in one `<powershell>` element.
pub(super) fn script(
    spec: &Ec2NodeClassSpec,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> String {
    let kubelet = spec.kubelet.clone().unwrap_or_default();
    let mut text = "<powershell>\n".to_owned();
    let own = spec.user_data.as_deref().unwrap_or_default().trim();
    let own = own.strip_prefix("<powershell>").unwrap_or(own);
    let own = own.strip_suffix("</powershell>").unwrap_or(own).trim();
    if !own.is_empty() {
        text.push_str(own);
        text.push('\n');
    }
    let mut call = r#"& "$env:ProgramFiles\Amazon\EKS\Start-EKSBootstrap.ps1""#.to_owned();
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            call.push_str(&format!(" -{name} '{value}'"));
        }
    };
    option("EKSClusterName", &cluster.name);
    option("APIServerEndpoint", &cluster.endpoint);
    option("Base64ClusterCA", &cluster.ca_bundle);
    option("DNSClusterIP", kubelet.cluster_dns.first().map_or("", String::as_str));
    option("KubeletExtraArgs", &arguments(&kubelet, node, "\"").join(" "));
    text.push_str(&call);
    text.push_str("\n</powershell>\n");
    text
}
