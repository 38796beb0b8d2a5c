//! What tells a container from the one that ran in its place before.

use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Hexadecimal digits in a runtime's id of a container.
const DIGITS: usize = 64;
/// Those that are kept: within one pod no two ids begin alike.
const KEPT: usize = 16;

/// The beginning of a container runtime's id of a container: 64 of its 256 bits, which tell the few containers
/// of one pod apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(NonZeroU64);

impl ContainerId {
    /// That of an id as containerd, CRI-O and Docker make them: 64 lower-case hexadecimal digits. `None` of
    /// anything else.
    pub fn of_hex(id: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != DIGITS || !id.bytes().all(is_digit) {
            return None;
        }
        let beginning = u64::from_str_radix(id.get(..KEPT)?, 16).ok()?;
        NonZeroU64::new(beginning).map(Self)
    }

    /// That of a container's status: `containerd://…`.
    pub fn of_status(text: &str) -> Option<Self> {
        Self::of_hex(text.split_once("://")?.1)
    }
}

/// As in a container's status; what was not kept of it is zeros.
pub(super) fn serialize<S: Serializer>(
    id: &Option<ContainerId>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = id.map(|ContainerId(beginning)| {
        format!("slim://{beginning:0KEPT$x}{:0rest$}", 0, rest = DIGITS - KEPT)
    });
    text.serialize(serializer)
}

/// An id of another form is none: a pod is read all the same.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ContainerId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(ContainerId::of_status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ContainerStatus;
    use super::*;

    #[test]
    fn ids_are_those_of_runtimes() {
        let id = "0f".repeat(32);
        let known = ContainerId::of_hex(&id);
        assert!(known.is_some());
        for runtime in ["containerd", "cri-o", "docker"] {
            assert_eq!(ContainerId::of_status(&format!("{runtime}://{id}")), known);
        }
        assert_ne!(ContainerId::of_hex(&"0e".repeat(32)), known);
        for none in ["", "containerd://", &id[1..], &id.to_uppercase(), &"é".repeat(32), &id] {
            assert_eq!(ContainerId::of_status(none), None, "{none}");
        }
    }

    #[test]
    fn a_status_is_read_whatever_its_id_is() {
        for (id, is_known) in [
            (serde_json::json!(format!("containerd://{}", "ab".repeat(32))), true),
            (serde_json::json!("sandbox://web"), false),
            (serde_json::json!(null), false),
        ] {
            let status = serde_json::json!({"name": "web", "containerID": id});
            let read: ContainerStatus = serde_json::from_value(status).unwrap();
            assert_eq!((read.name.as_str(), read.container_id.is_some()), ("web", is_known));
            let again = serde_json::to_value(&read).unwrap();
            assert_eq!(serde_json::from_value::<ContainerStatus>(again).unwrap(), read);
        }
    }

    proptest! {
        #[test]
        fn only_ids_are_ids(text in "([a-z-]{0,9}(://)?)?([0-9a-g]{60,66}|\\PC{0,70})") {
            prop_assert!(ContainerId::of_hex(&text).is_none() || text.len() == DIGITS);
            let _id = ContainerId::of_status(&text);
        }
    }
}
