//! What user data tells a kubelet: labels, taints and the number of pods.
//!
//! Read are nodeadm's NodeConfig (also within MIME parts), Bottlerocket's TOML settings, and the
//! arguments `--node-labels`, `--register-with-taints` and `--max-pods` wherever they stand.

use std::collections::BTreeMap;

use drover_common::taint::{Taint, TaintEffect};
use serde::Deserialize;
use serde_json::Value;

use crate::world::object;

/// What a kubelet registers its node with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KubeletSettings {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) max_pods: Option<u32>,
}

impl KubeletSettings {
    pub(super) fn read(user_data: &str) -> Self {
        let mut settings = Self::default();
        settings.read_arguments(user_data);
        for part in parts(user_data) {
            settings.read_node_config(&part);
        }
        settings.read_bottlerocket(user_data);
        settings
    }

    fn read_arguments(&mut self, text: &str) {
        for value in arguments(text, "--node-labels=") {
            for (key, value) in value.split(',').filter_map(|label| label.split_once('=')) {
                self.labels.insert(key.to_owned(), value.to_owned());
            }
        }
        for value in arguments(text, "--register-with-taints=") {
            for taint in value.split(',') {
                let Some((name, effect)) = taint.rsplit_once(':') else { continue };
                let (key, value) = name.split_once('=').unwrap_or((name, ""));
                self.add_taint(key, value, effect);
            }
        }
        let pods = arguments(text, "--max-pods=").next().and_then(|value| value.parse().ok());
        self.max_pods = self.max_pods.or(pods);
    }

    fn add_taint(&mut self, key: &str, value: &str, effect: &str) {
        let effect = match effect {
            "NoSchedule" => TaintEffect::NoSchedule,
            "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
            "NoExecute" => TaintEffect::NoExecute,
            _ => return,
        };
        let taint = Taint { key: key.to_owned(), value: value.to_owned(), effect };
        if !self.taints.contains(&taint) {
            self.taints.push(taint);
        }
    }

    /// nodeadm's configuration; its `flags` are among the arguments already.
    fn read_node_config(&mut self, part: &str) {
        if !part.contains("NodeConfig") {
            return;
        }
        let Ok(config) = serde_saphyr::from_str::<Value>(part) else { return };
        let kubelet = "/spec/kubelet/config";
        for taint in object::list(&config, &format!("{kubelet}/registerWithTaints")) {
            if let Ok(taint) = Taint::deserialize(taint)
                && !self.taints.contains(&taint)
            {
                self.taints.push(taint);
            }
        }
        let pods = object::integer(&config, &format!("{kubelet}/maxPods"));
        self.max_pods = self.max_pods.or_else(|| pods.and_then(|pods| u32::try_from(pods).ok()));
    }

    fn read_bottlerocket(&mut self, text: &str) {
        let mut table = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                table = name.trim();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (unquoted(key), value.trim());
            match table.replace('"', "").as_str() {
                "settings.kubernetes.node-labels" => {
                    self.labels.insert(key.to_owned(), unquoted(value).to_owned());
                }
                "settings.kubernetes.node-taints" => {
                    let list = value.trim_start_matches('[').trim_end_matches(']');
                    for entry in list.split(',').map(unquoted) {
                        let (value, effect) = entry.rsplit_once(':').unwrap_or(("", entry));
                        self.add_taint(key, value, effect);
                    }
                }
                "settings.kubernetes" if key == "max-pods" => {
                    self.max_pods = self.max_pods.or_else(|| value.parse().ok());
                }
                _ => {}
            }
        }
    }
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(|mark| mark == '"' || mark == '\'')
}

/// The values of a command line argument: up to white space or a quote.
fn arguments<'a>(text: &'a str, argument: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(argument).skip(1).map(|rest| {
        // The value itself may be quoted.
        let rest = rest.trim_start_matches(['"', '\'']);
        let end = rest.find(|mark: char| mark.is_whitespace() || mark == '"' || mark == '\'');
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    })
}

/// The bodies of MIME parts; the whole text if it is not MIME.
fn parts(text: &str) -> Vec<String> {
    let boundary = text
        .split("boundary=")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .map(|rest| unquoted(rest.trim().trim_end_matches(';')));
    let Some(boundary) = boundary.filter(|boundary| !boundary.is_empty()) else {
        return vec![text.to_owned()];
    };
    let marker = format!("--{boundary}");
    text.replace("\r\n", "\n")
        .split(marker.as_str())
        .skip(1)
        .filter_map(|part| part.split_once("\n\n").map(|(_headers, body)| body.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unregistered() -> Taint {
        let key = "karpenter.sh/unregistered".to_owned();
        Taint { key, value: String::new(), effect: TaintEffect::NoExecute }
    }

    #[test]
    fn nodeadm_configuration_is_read_from_mime() {
        let settings = KubeletSettings::read(concat!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\n",
            "Content-Type: application/node.eks.aws\n\n",
            "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n    config:\n",
            "      maxPods: 58\n      registerWithTaints:\n      - effect: NoExecute\n",
            "        key: karpenter.sh/unregistered\n    flags:\n",
            "    - --node-labels=karpenter.sh/nodepool=default,team=a\n--//--\n",
        ));
        assert_eq!(settings.max_pods, Some(58));
        assert_eq!(settings.taints, [unregistered()]);
        assert_eq!(settings.labels.get("karpenter.sh/nodepool").unwrap(), "default");
        assert_eq!(settings.labels.get("team").unwrap(), "a");
    }

    #[test]
    fn arguments_are_read_from_shell() {
        let settings = KubeletSettings::read(concat!(
            "#!/bin/bash\n/etc/eks/bootstrap.sh sandbox --kubelet-extra-args ",
            "'--node-labels=\"a=b\" --max-pods=110 ",
            "--register-with-taints=karpenter.sh/unregistered:NoExecute,gpu=yes:NoSchedule'\n",
        ));
        assert_eq!(settings.labels.get("a").unwrap(), "b");
        assert_eq!(settings.max_pods, Some(110));
        let gpu = Taint { key: "gpu".into(), value: "yes".into(), effect: TaintEffect::NoSchedule };
        assert_eq!(settings.taints, [unregistered(), gpu]);
    }

    #[test]
    fn bottlerocket_settings_are_read() {
        let settings = KubeletSettings::read(concat!(
            "[settings.kubernetes]\ncluster-name = \"sandbox\"\nmax-pods = 29\n",
            "[settings.kubernetes.node-labels]\n\"karpenter.sh/nodepool\" = \"default\"\n",
            "[settings.kubernetes.node-taints]\n\"karpenter.sh/unregistered\" = [\":NoExecute\"]\n",
        ));
        assert_eq!(settings.max_pods, Some(29));
        assert_eq!(settings.taints, [unregistered()]);
        assert_eq!(settings.labels.get("karpenter.sh/nodepool").unwrap(), "default");
    }
}
