//! Request paths.

use drover_common::call::{Kind, Target};

/// The path of a kind's collection: in one namespace, or across all.
pub(crate) fn collection(kind: Kind, namespace: Option<&str>) -> String {
    let endpoint = kind.endpoint();
    let root = if endpoint.group.is_empty() {
        format!("/api/{}", endpoint.version)
    } else {
        format!("/apis/{}/{}", endpoint.group, endpoint.version)
    };
    match namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{}", endpoint.plural),
        None => format!("{root}/{}", endpoint.plural),
    }
}

/// The path of the collection a target lies in, after checking that its names fit into a path and
/// its namespace to its kind.
pub(crate) fn parent(target: &Target) -> Result<String, String> {
    let namespaced = target.kind.endpoint().namespaced;
    match &target.namespace {
        Some(_) if !namespaced => return Err(format!("{:?} has no namespace", target.kind)),
        None if namespaced => {
            return Err(format!("{:?} {} needs a namespace", target.kind, target.name));
        }
        Some(namespace) => check_segment("namespace", namespace)?,
        None => {}
    }
    check_segment("name", &target.name)?;
    Ok(collection(target.kind, target.namespace.as_deref()))
}

/// The path of one object.
pub(crate) fn object(target: &Target) -> Result<String, String> {
    Ok(format!("{}/{}", parent(target)?, target.name))
}

/// Names are never escaped: Kubernetes' own rules leave nothing to escape, so that a name which
/// would need it is not one.
fn check_segment(what: &str, text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if text.is_empty() || text == "." || text == ".." || !text.chars().all(fits) {
        return Err(format!("{what} {text:?} is not a Kubernetes name"));
    }
    Ok(())
}

/// `text` as the value of a query parameter.
pub(crate) fn query_value(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        let pod = Target::namespaced(Kind::Pod, "shop", "cart-0");
        assert_eq!(object(&pod).unwrap(), "/api/v1/namespaces/shop/pods/cart-0");
        let claim = Target::cluster(Kind::NodeClaim, "c-1");
        assert_eq!(object(&claim).unwrap(), "/apis/karpenter.sh/v1/nodeclaims/c-1");
        assert_eq!(collection(Kind::Pod, None), "/api/v1/pods");
        for bad in ["", "..", "a/b", "a?b", "a b"] {
            assert!(object(&Target::cluster(Kind::Node, bad)).is_err(), "{bad}");
        }
        assert!(object(&Target::cluster(Kind::Pod, "p")).is_err());
        assert!(object(&Target::namespaced(Kind::Node, "n", "p")).is_err());
        assert_eq!(query_value("spec.nodeName=a b"), "spec.nodeName%3Da%20b");
    }
}
