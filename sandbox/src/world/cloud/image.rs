//! Machine images and the SSM parameters that point at them, at AWS's real paths.

use std::collections::BTreeMap;

use drover_common::ec2::{Image, SelectorTerm, Tags};
use jiff::Timestamp;

use super::network::{DISCOVERY_TAG, any_term, id_matches, tags_match, wildcard};

/// The account that owns EKS's images.
const EKS_ACCOUNT: &str = "602401143452";
/// The account of the simulated user.
pub(super) const OWN_ACCOUNT: &str = "123456789012";
/// Kubernetes versions for which there are images.
const KUBERNETES_VERSIONS: [&str; 7] = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35"];
/// Releases, older first: day, Bottlerocket version.
const RELEASES: [(&str, &str); 2] = [("20260818", "1.48.0"), ("20261015", "1.51.0")];

/// An image with what selectors look at.
#[derive(Clone, Debug)]
pub(super) struct SimulatedImage {
    pub(super) image: Image,
    pub(super) owner: String,
    pub(super) tags: Tags,
    pub(super) windows: bool,
}

/// All images and public parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Images {
    pub(super) images: BTreeMap<String, SimulatedImage>,
    parameters: BTreeMap<String, String>,
}

/// One image to make: what it is called, and the parameters that name it when it is the newest.
struct Build {
    name: String,
    architecture: &'static str,
    windows: bool,
    pinned: Option<String>,
    newest: Option<String>,
}

impl Images {
    pub(super) fn new(cluster: &str, mut id: impl FnMut(&str) -> String) -> Self {
        let mut images = Self::default();
        for (day, bottlerocket) in RELEASES {
            let newest = Some(day) == RELEASES.last().map(|(day, _)| *day);
            for version in KUBERNETES_VERSIONS {
                for mut build in linux_builds(version, day, bottlerocket)
                    .into_iter()
                    .chain(windows_builds(version, day))
                {
                    if !newest {
                        build.newest = None;
                    }
                    images.add(id("ami"), build, day, EKS_ACCOUNT, Tags::new());
                }
            }
            for architecture in ["amd64", "arm64"] {
                let tags = Tags::from([(DISCOVERY_TAG.to_owned(), cluster.to_owned())]);
                let name = format!("{cluster}-custom-{architecture}-{day}");
                let build =
                    Build { name, architecture, windows: false, pinned: None, newest: None };
                images.add(id("ami"), build, day, OWN_ACCOUNT, tags);
            }
        }
        images
    }

    fn add(&mut self, id: String, build: Build, day: &str, owner: &str, tags: Tags) {
        for parameter in build.pinned.into_iter().chain(build.newest) {
            self.parameters.insert(parameter, id.clone());
        }
        let image = Image {
            id: id.clone(),
            name: build.name,
            architecture: build.architecture.to_owned(),
            creation_date: release_time(day),
            deprecated: false,
        };
        let windows = build.windows;
        self.images.insert(id, SimulatedImage { image, owner: owner.to_owned(), tags, windows });
    }

    /// The value of a public parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Images that match any of the terms, newest first.
    pub(super) fn matching(&self, terms: &[SelectorTerm]) -> Vec<Image> {
        let mut found: Vec<Image> = self
            .images
            .values()
            .filter(|image| any_term(terms, |term| image.matches(term)))
            .map(|image| image.image.clone())
            .collect();
        found.sort_by(|left, right| {
            right.creation_date.cmp(&left.creation_date).then_with(|| left.id.cmp(&right.id))
        });
        found
    }
}

impl SimulatedImage {
    fn matches(&self, term: &SelectorTerm) -> bool {
        id_matches(term, &self.image.id)
            && term.name.as_ref().is_none_or(|name| wildcard(name, &self.image.name))
            && term.owner.as_ref().is_none_or(|owner| self.owned_by(owner))
            && tags_match(&term.tags, &self.tags)
    }

    /// `self` and `amazon` are EC2's aliases for the caller and for AWS's own accounts.
    fn owned_by(&self, owner: &str) -> bool {
        match owner {
            "self" => self.owner == OWN_ACCOUNT,
            "amazon" => self.owner == EKS_ACCOUNT,
            account => self.owner == account,
        }
    }
}

fn release_time(day: &str) -> Timestamp {
    let text = match (day.get(0..4), day.get(4..6), day.get(6..8)) {
        (Some(year), Some(month), Some(day)) => format!("{year}-{month}-{day}T02:11:42Z"),
        _ => String::new(),
    };
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn linux_builds(version: &str, day: &str, bottlerocket: &str) -> Vec<Build> {
    let mut builds = Vec::new();
    let eks = format!("/aws/service/eks/optimized-ami/{version}");
    for (flavour, folder, architecture) in [
        ("node", "amazon-linux-2", "amd64"),
        ("arm64-node", "amazon-linux-2-arm64", "arm64"),
        ("gpu-node", "amazon-linux-2-gpu", "amd64"),
    ] {
        let name = format!("amazon-eks-{flavour}-{version}-v{day}");
        builds.push(build(name, architecture, &format!("{eks}/{folder}")));
    }
    for (machine, architecture, variant) in [
        ("x86_64", "amd64", "standard"),
        ("x86_64", "amd64", "nvidia"),
        ("x86_64", "amd64", "neuron"),
        ("arm64", "arm64", "standard"),
        ("arm64", "arm64", "nvidia"),
    ] {
        let name = format!("amazon-eks-node-al2023-{machine}-{variant}-{version}-v{day}");
        let folder = format!("{eks}/amazon-linux-2023/{machine}/{variant}");
        builds.push(build(name, architecture, &folder));
    }
    for (machine, architecture, suffix) in [
        ("x86_64", "amd64", ""),
        ("arm64", "arm64", ""),
        ("x86_64", "amd64", "-nvidia"),
        ("arm64", "arm64", "-nvidia"),
    ] {
        let folder = format!("/aws/service/bottlerocket/aws-k8s-{version}{suffix}/{machine}");
        builds.push(Build {
            name: format!("bottlerocket-aws-k8s-{version}{suffix}-{machine}-v{bottlerocket}"),
            architecture,
            windows: false,
            pinned: Some(format!("{folder}/{bottlerocket}/image_id")),
            newest: Some(format!("{folder}/latest/image_id")),
        });
    }
    builds
}

/// An EKS-optimized image: one parameter per release and one for the recommended release.
fn build(name: String, architecture: &'static str, folder: &str) -> Build {
    Build {
        pinned: Some(format!("{folder}/{name}/image_id")),
        newest: Some(format!("{folder}/recommended/image_id")),
        name,
        architecture,
        windows: false,
    }
}

fn windows_builds(version: &str, day: &str) -> Vec<Build> {
    ["2019", "2022", "2025"]
        .into_iter()
        .flat_map(|edition| ["Core", "Full"].map(|kind| (edition, kind)))
        .map(|(edition, kind)| {
            let stem = format!("Windows_Server-{edition}-English-{kind}-EKS_Optimized-{version}");
            Build {
                name: format!("{stem}-{}", dotted(day)),
                architecture: "amd64",
                windows: true,
                pinned: None,
                newest: Some(format!("/aws/service/ami-windows-latest/{stem}/image_id")),
            }
        })
        .collect()
}

/// Windows images carry their day as `2026.10.15`.
fn dotted(day: &str) -> String {
    let mut text = day.to_owned();
    if text.len() == 8 && text.is_ascii() {
        text.insert(6, '.');
        text.insert(4, '.');
    }
    text
}
