//! User data: what makes an instance a node of the cluster, merged with the user's own, in the way
//! of each image family.

mod amazon_linux;
mod arguments;
mod bottlerocket;
mod mime;
mod windows;
mod yaml;

use drover_common::crd::{AmiFamily, Ec2NodeClassSpec};

use super::template::{ClusterSettings, NodeRegistration};

/// Why a class's `spec.userData` can't be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// Bottlerocket takes TOML.
    #[error("not TOML, which Bottlerocket needs: {0}")]
    Toml(String),
    /// A table of it is something else.
    #[error("{0} is not a table")]
    NotATable(String),
    /// It says it is MIME, but has no parts.
    #[error("MIME without a boundary")]
    Boundary,
}

/// The user data of a node. That of a Custom image is the user's own, untouched.
pub(super) fn user_data(
    spec: &Ec2NodeClassSpec,
    family: AmiFamily,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> Result<String, UserDataError> {
    match family {
        AmiFamily::Al2 => amazon_linux::bootstrap(spec, node, cluster),
        AmiFamily::Al2023 => amazon_linux::nodeadm(spec, node, cluster),
        AmiFamily::Bottlerocket => bottlerocket::settings(spec, node, cluster),
        AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
            Ok(windows::script(spec, node, cluster))
        }
        AmiFamily::Custom => Ok(spec.user_data.clone().unwrap_or_default()),
    }
}
