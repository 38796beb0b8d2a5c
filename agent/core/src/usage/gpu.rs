//! What NVIDIA's DCGM exporter tells of a node's GPUs, and of the pods that have them. Fields and their units:
//! <https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html>.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use drover_common::protocol::{GpuUsage, UsageDigest};

use super::exposition::Exposed;
use super::kubelet::{PodNames, amount};

/// More than any machine has, each of its GPUs cut into seven.
const MOST_DEVICES: usize = 256;
/// A device's UUID has 40 letters.
const LONGEST_ID: usize = 80;
/// More memory than any device has, MiB.
const MOST_MEBIBYTES: f64 = 16_777_216.0;

/// One answer of the exporter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuReading {
    devices: BTreeMap<(String, String), Device>,
    /// Whether pods are told by labels that begin with `exported_`, as after a detour by a Prometheus
    /// server: `pod` is then the exporter's own.
    is_exported: bool,
}

/// A GPU, or an instance of a partitioned one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Device {
    busy_permille: Option<u32>,
    /// The share of time that its engines were active: all that is told of a part of a GPU.
    active_permille: Option<u32>,
    memory_used: Option<u64>,
    memory_free: Option<u64>,
    holder: Holder,
    exported_holder: Holder,
}

/// Whose a device is.
#[derive(Clone, Debug, Default, PartialEq)]
enum Holder {
    #[default]
    Nobody,
    Pod(Arc<str>),
    /// Several share it, so that nobody knows whose the use is; or a pod that is not known here.
    Others,
}

impl Holder {
    fn add(&mut self, pod: Option<&Arc<str>>) {
        *self = match (&*self, pod) {
            (Holder::Nobody, Some(uid)) => Holder::Pod(Arc::clone(uid)),
            (Holder::Pod(known), Some(uid)) if known == uid => return,
            _ => Holder::Others,
        };
    }
}

/// Use of a node's GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuUse {
    node: GpuUsage,
    pods: BTreeMap<Arc<str>, GpuUsage>,
}

impl GpuReading {
    /// Takes in a line; whatever tells nothing of a device is passed over.
    pub fn take(&mut self, line: &str, names: &PodNames) {
        let Some(sample) = Exposed::parse(line) else { return };
        let Some(value) = amount(sample.value) else { return };
        let measure: fn(&mut Device, f64) = match sample.name {
            "DCGM_FI_DEV_GPU_UTIL" => {
                |device, value| device.busy_permille = permille(value / 100.0)
            }
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE" => {
                |device, value| device.active_permille = permille(value)
            }
            "DCGM_FI_DEV_FB_USED" => |device, value| device.memory_used = bytes(value),
            "DCGM_FI_DEV_FB_FREE" => |device, value| device.memory_free = bytes(value),
            _ => return,
        };
        let text = |label: &str| sample.label(label).filter(|text| !text.is_empty());
        let Some(id) = text("UUID").or_else(|| text("gpu")) else { return };
        let part = text("GPU_I_ID").unwrap_or_default();
        if id.len().max(part.len()) > LONGEST_ID {
            return;
        }
        let key = (id.to_owned(), part.to_owned());
        if self.devices.len() >= MOST_DEVICES && !self.devices.contains_key(&key) {
            return;
        }
        let device = self.devices.entry(key).or_default();
        measure(device, value);
        let pod = |namespace: &str, pod: &str| {
            let key = ObjectKey::new(text(namespace)?, text(pod)?);
            Some(names.get(&key))
        };
        if let Some(pod) = pod("exported_namespace", "exported_pod") {
            self.is_exported = true;
            device.exported_holder.add(pod);
        }
        if let Some(pod) = pod("namespace", "pod").or_else(|| pod("pod_namespace", "pod_name")) {
            device.holder.add(pod);
        }
    }

    /// What it amounts to; `None` if it tells of no device.
    pub fn usage(&self) -> Option<GpuUse> {
        let node = sum(self.devices.values())?;
        let mut held: BTreeMap<&Arc<str>, Vec<&Device>> = BTreeMap::new();
        for device in self.devices.values() {
            let holder = if self.is_exported { &device.exported_holder } else { &device.holder };
            if let Holder::Pod(uid) = holder {
                held.entry(uid).or_default().push(device);
            }
        }
        let pods = held
            .into_iter()
            .filter_map(|(uid, devices)| Some((Arc::clone(uid), sum(devices.into_iter())?)));
        Some(GpuUse { node, pods: pods.collect() })
    }
}

impl GpuUse {
    /// Writes it into a digest: the node's, and that of the pods that were measured.
    pub fn write(&self, digest: &mut UsageDigest) {
        digest.gpu = Some(self.node);
        for pod in &mut digest.pods {
            pod.gpu = self.pods.get(pod.uid.as_str()).copied().map(Box::new);
        }
    }
}

/// Devices taken together. What is not known of one of them is not known of all.
fn sum<'a>(devices: impl Iterator<Item = &'a Device> + Clone) -> Option<GpuUsage> {
    let count = u32::try_from(devices.clone().count()).ok().filter(|&count| count > 0)?;
    let busy: Option<u32> =
        devices.clone().map(|device| device.busy_permille.or(device.active_permille)).sum();
    Some(GpuUsage {
        count,
        busy_permille: busy.and_then(|sum| sum.checked_div(count)),
        memory_used: devices.clone().map(|device| device.memory_used).sum(),
        memory_free: devices.map(|device| device.memory_free).sum(),
    })
}

fn permille(share: f64) -> Option<u32> {
    (share <= 1.0).then_some((share * 1000.0).round() as u32)
}

fn bytes(mebibytes: f64) -> Option<u64> {
    (mebibytes <= MOST_MEBIBYTES).then_some((mebibytes as u64) << 20)
}

#[cfg(test)]
mod tests {
    use drover_common::protocol::PodUsage;

    use super::*;

    fn names() -> PodNames {
        ["web", "train"]
            .into_iter()
            .map(|name| (ObjectKey::new("d", name), Arc::from(format!("u-{name}"))))
            .collect()
    }

    fn usage(text: &str) -> Option<GpuUse> {
        let mut reading = GpuReading::default();
        text.lines().for_each(|line| reading.take(line, &names()));
        reading.usage()
    }

    fn told(count: u32, busy: Option<u32>, used: Option<u64>, free: Option<u64>) -> GpuUsage {
        let mebibytes = |amount: Option<u64>| amount.map(|amount| amount << 20);
        GpuUsage {
            count,
            busy_permille: busy,
            memory_used: mebibytes(used),
            memory_free: mebibytes(free),
        }
    }

    #[test]
    fn devices_add_up_to_the_nodes_and_their_pods_use() {
        let usage = usage(
            r#"# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",device="nvidia0",namespace="d",pod="train"} 90
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",device="nvidia1",namespace="d",pod="train"} 51
DCGM_FI_DEV_GPU_UTIL{gpu="2",UUID="GPU-c",device="nvidia2",namespace="d",pod="elsewhere"} 0
DCGM_FI_DEV_GPU_UTIL{gpu="3",UUID="GPU-d",device="nvidia3"} 3
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",namespace="d",pod="train"} 1000
DCGM_FI_DEV_FB_USED{gpu="1",UUID="GPU-b",namespace="d",pod="train"} 24
DCGM_FI_DEV_FB_USED{gpu="2",UUID="GPU-c",namespace="d",pod="elsewhere"} 0
DCGM_FI_DEV_FB_USED{gpu="3",UUID="GPU-d"} 0
DCGM_FI_DEV_FB_FREE{gpu="0",UUID="GPU-a",namespace="d",pod="train"} 15000
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a"} 139
"#,
        )
        .unwrap();
        assert_eq!(usage.node, told(4, Some(360), Some(1024), None), "free is unknown of three");
        let train = told(2, Some(705), Some(1024), None);
        assert_eq!(usage.pods, BTreeMap::from([(Arc::from("u-train"), train)]));
        let pod = |uid: &str| PodUsage { uid: uid.to_owned(), ..PodUsage::default() };
        let pods = vec![pod("u-train"), pod("u-web")];
        let mut digest = UsageDigest { pods, ..UsageDigest::default() };
        usage.write(&mut digest);
        assert_eq!(digest.gpu, Some(usage.node));
        assert_eq!(
            (digest.pods[0].gpu.as_deref(), digest.pods[1].gpu.as_deref()),
            (Some(&train), None)
        );
    }

    #[test]
    fn what_pods_share_is_nobodys() {
        let usage = usage(
            r#"DCGM_FI_DEV_GPU_UTIL{UUID="GPU-a",namespace="d",pod="train"} 90
DCGM_FI_DEV_GPU_UTIL{UUID="GPU-a",namespace="d",pod="web"} 90
DCGM_FI_DEV_GPU_UTIL{UUID="GPU-a",namespace="d",pod="web"} 90
"#,
        );
        let usage = usage.unwrap();
        assert_eq!((usage.node.count, usage.node.busy_permille), (1, Some(900)));
        assert!(usage.pods.is_empty(), "{usage:?}");
    }

    #[test]
    fn instances_of_a_gpu_are_devices_of_their_own() {
        let usage = usage(
            r#"DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID="GPU-a",GPU_I_ID="1",namespace="d",pod="web"} 0.25
DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID="GPU-a",GPU_I_ID="2",namespace="d",pod="train"} 0.75
"#,
        );
        let usage = usage.unwrap();
        assert_eq!((usage.node.count, usage.node.busy_permille), (2, Some(500)));
        assert_eq!(usage.pods.get("u-web").unwrap().busy_permille, Some(250));
    }

    #[test]
    fn after_a_detour_the_exporters_own_pod_is_not_taken_for_the_holder() {
        let usage = usage(
            r#"DCGM_FI_DEV_GPU_UTIL{UUID="GPU-a",namespace="d",pod="web",exported_namespace="d",exported_pod="train"} 90
DCGM_FI_DEV_GPU_UTIL{UUID="GPU-b",namespace="d",pod="web"} 0
"#,
        );
        let pods: Vec<_> = usage.unwrap().pods.into_keys().collect();
        assert_eq!(pods, [Arc::from("u-train")]);
    }

    #[test]
    fn impossible_numbers_are_unknown_and_devices_are_not_endless() {
        assert_eq!(
            usage("DCGM_FI_DEV_GPU_UTIL 5\nDCGM_FI_DEV_GPU_UTIL{UUID=\"\"} 5\nup 1\n"),
            None
        );
        let usage = usage(
            "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 101\nDCGM_FI_DEV_FB_USED{gpu=\"0\"} 1e300\nDCGM_FI_DEV_FB_FREE{gpu=\"0\"} NaN\n",
        );
        assert_eq!(usage.unwrap().node, told(1, None, None, None));
        let mut reading = GpuReading::default();
        for device in 0..10_000 {
            reading.take(&format!("DCGM_FI_DEV_GPU_UTIL{{gpu=\"{device}\"}} 1"), &names());
        }
        assert_eq!(reading.usage().unwrap().node.count, 256);
    }
}
