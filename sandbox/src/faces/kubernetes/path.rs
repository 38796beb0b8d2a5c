//! Taking API paths apart.

use crate::world::failure::{ApiFailure, ApiResult};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiPath {
    /// A resource, one of its objects, or a subresource.
    Resource(ResourcePath),
    /// `/healthz`, `/livez`, `/readyz`.
    Probe,
}

/// `/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME/SUBRESOURCE`; what is not there is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

impl ResourcePath {
    /// `pods` or `pods/status`.
    pub(super) fn name_of_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.plural.clone()
        } else {
            format!("{}/{}", self.plural, self.subresource)
        }
    }
}

/// Takes a path apart.
pub(super) fn parse(path: &str) -> ApiResult<ApiPath> {
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(decode_percent).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let resource = match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Ok(ApiPath::Probe),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => None,
    };
    resource.map(ApiPath::Resource).ok_or_else(ApiFailure::unknown_path)
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<ResourcePath> {
    // `namespaces/x` is an object, `namespaces/x/pods` a resource in it; these two are the
    // namespace's own subresources.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, tail @ ..]
            if !(tail.is_empty() && matches!(*plural, "status" | "finalize")) =>
        {
            (*namespace, [&[*plural], tail].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let (plural, name, subresource) = match rest.as_slice() {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return None,
    };
    Some(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        plural: plural.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    })
}

/// Undoes percent-encoding; a sequence that is none stays as it is.
pub(super) fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let code = text
            .get(index + 1..index + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(*byte));
        index += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> ResourcePath {
        match parse(path).unwrap() {
            ApiPath::Resource(path) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn namespaces_are_objects_and_places() {
        let namespace = read("/api/v1/namespaces/default");
        assert_eq!((&*namespace.plural, &*namespace.name), ("namespaces", "default"));
        let pods = read("/api/v1/namespaces/default/pods/a/eviction");
        assert_eq!(
            (&*pods.namespace, &*pods.name, &*pods.subresource),
            ("default", "a", "eviction")
        );
        assert_eq!(read("/api/v1/namespaces/default/status").subresource, "status");
        assert_eq!(read("/apis/karpenter.sh/v1/nodepools").group, "karpenter.sh");
        assert_eq!(read("/api/v1/nodes/a%3Ab").name, "a:b");
    }

    #[test]
    fn paths_to_nothing_are_404() {
        for path in ["/", "/apis/apps/v1/a/b/c/d", "/elsewhere"] {
            assert_eq!(parse(path).unwrap_err().code, 404, "{path}");
        }
    }
}
