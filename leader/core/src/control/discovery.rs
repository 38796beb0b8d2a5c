//! What EC2, SSM and Pricing say of types, prices and classes: read on start and by interval.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::call::{Call, Outcome};
use drover_common::crd::Ec2NodeClass;
use drover_common::ec2::{Ec2Call, Ec2Failure, Ec2FailureKind};
use drover_common::instance_type::{CapacityType, InstanceType, Reservation};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::calls::{CallKey, CallTable};
use crate::nodeclass::{
    CatalogFlags, ClassAnswers, CloudFacts, NodeClassCatalog, ResolvedClass, ResolvedReservation,
    catalog, class_calls, resolve,
};

/// A class whose reads failed is read again after this long.
const RETRY_FAILED_CLASS: SignedDuration = SignedDuration::from_secs(5);

/// What was read, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    facts: CloudFacts,
    read_at: BTreeMap<&'static str, Timestamp>,
    unsupported: BTreeSet<&'static str>,
    classes: BTreeMap<String, ClassReading>,
    catalogs: BTreeMap<String, NodeClassCatalog>,
    /// Which class a call under way belongs to.
    asked_for: BTreeMap<CallKey, String>,
    version: u64,
    stale: bool,
}

/// One class and the answers gathered for it.
#[derive(Debug)]
struct ClassReading {
    uid: Option<String>,
    generation: Option<i64>,
    begun_at: Timestamp,
    answers: ClassAnswers,
    complete: bool,
    resolved: Option<ResolvedClass>,
    /// When the reading began that `resolved` still is the outcome of.
    read_at: Option<Timestamp>,
}

impl ClassReading {
    /// The reservations that the class resolved to.
    fn reservations(&self) -> &[ResolvedReservation] {
        let resolved = self.resolved.as_ref();
        resolved.and_then(|resolved| resolved.reservations.as_deref()).unwrap_or_default()
    }
}

impl Discovery {
    /// Instance types by EC2NodeClass; only classes that are ready.
    pub(super) fn catalogs(&self) -> &BTreeMap<String, NodeClassCatalog> {
        &self.catalogs
    }

    /// Counts changes of the catalogues.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// What a class resolved to.
    pub(super) fn resolved(&self, class: &str) -> Option<&ResolvedClass> {
        self.classes.get(class)?.resolved.as_ref()
    }

    /// When the newest of the readings began that tell what a reservation has room for.
    pub(super) fn told_at(&self, reservation: &str) -> Option<Timestamp> {
        self.newest_of(reservation)?.0
    }

    /// What a reservation has room for and when that reading began. Classes that select the same one
    /// are read at different times: the newest speaks for all, of equal ones that with the least room.
    fn newest_of(&self, reservation: &str) -> Option<(Option<Timestamp>, u32)> {
        let readings = self.classes.values().flat_map(|reading| {
            let of_class = reading.reservations().iter().filter(|one| one.told.id == reservation);
            of_class.map(|one| (reading.read_at, one.told.available))
        });
        readings.max_by_key(|(read_at, free)| (*read_at, Reverse(*free)))
    }

    /// One instance type under a class.
    pub(super) fn instance_type(&self, class: &str, name: &str) -> Option<&InstanceType> {
        let types = &self.catalogs.get(class)?.instance_types;
        let position = types.binary_search_by(|kind| kind.name.as_str().cmp(name)).ok()?;
        types.get(position)
    }

    /// Micro-dollars an hour of an offering, if known.
    pub(super) fn price(
        &self,
        class: &str,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
    ) -> Option<u64> {
        let kind = self.instance_type(class, instance_type)?;
        kind.offerings
            .iter()
            .find(|offering| offering.zone == zone && offering.capacity_type == capacity_type)?
            .price
    }

    /// A capacity reservation of a class.
    pub(super) fn reservation(
        &self,
        class: &str,
        instance_type: &str,
        id: &str,
    ) -> Option<&Reservation> {
        let kind = self.instance_type(class, instance_type)?;
        let mut own = kind.offerings.iter().filter_map(|o| o.reservation.as_ref());
        own.find(|reservation| reservation.id == id)
    }

    /// Whether types and zones are known, and each price list was read or can't be.
    pub(super) fn is_ready(&self, calls: &CallTable) -> bool {
        self.facts.is_usable()
            && CloudFacts::global_calls().iter().all(|call| {
                let name = call.name();
                self.read_at.contains_key(name)
                    || self.unsupported.contains(name)
                    || calls.failures(&CallKey::Discover(name.to_owned())) > 2
            })
    }

    /// Forgets which calls are under way; what was read stays.
    pub(super) fn forget_calls(&mut self) {
        self.asked_for.clear();
    }
}

impl Control {
    pub(super) fn discover(&mut self, now: Timestamp) {
        for call in CloudFacts::global_calls() {
            let name = call.name();
            let fresh = self
                .discovery
                .read_at
                .get(name)
                .is_some_and(|at| now.duration_since(*at) < self.settings.catalog_refresh);
            if !fresh && !self.discovery.unsupported.contains(name) {
                self.calls.call(CallKey::Discover(name.to_owned()), Call::Ec2(call), now);
            }
        }
        if self.view.is_synced() {
            self.read_classes(now);
        }
        if self.discovery.stale && self.discovery.is_ready(&self.calls) {
            self.rebuild_catalogs();
        }
    }

    fn read_classes(&mut self, now: Timestamp) {
        let names: BTreeSet<String> = self.view.classes().keys().cloned().collect();
        let before = self.discovery.classes.len();
        self.discovery.classes.retain(|name, _| names.contains(name));
        self.discovery.stale |= self.discovery.classes.len() != before;
        for name in names {
            self.read_class(&name, now);
        }
    }

    fn read_class(&mut self, name: &str, now: Timestamp) {
        let Some(class) = self.class_to_read(name) else { return };
        let refresh = self.settings.class_refresh;
        let reading =
            self.discovery.classes.entry(name.to_owned()).or_insert_with(|| ClassReading {
                uid: class.metadata.uid.clone(),
                generation: class.metadata.generation,
                begun_at: now,
                answers: ClassAnswers::default(),
                complete: false,
                resolved: None,
                read_at: None,
            });
        let failed = !reading.answers.failures().is_empty();
        let wait = if failed { RETRY_FAILED_CLASS } else { refresh };
        let aged = reading.complete && now.duration_since(reading.begun_at) >= wait;
        let changed =
            reading.generation != class.metadata.generation || reading.uid != class.metadata.uid;
        if aged || changed {
            reading.generation = class.metadata.generation;
            reading.uid.clone_from(&class.metadata.uid);
            reading.begun_at = now;
            reading.answers = ClassAnswers::default();
            reading.complete = false;
            if changed {
                // What it meant before is not what is asked for now.
                reading.resolved = None;
                self.discovery.stale = true;
            }
        }
        if reading.complete {
            return;
        }
        let calls = class_calls(&class, &self.settings.cluster, &reading.answers);
        if calls.is_empty() {
            let resolved = resolve(&class, &self.settings.cluster, &reading.answers, now);
            reading.complete = true;
            if reading.answers.failures().is_empty() {
                reading.read_at = Some(reading.begun_at);
            }
            // A failed read says nothing new: what was resolved before stands.
            let keep = !reading.answers.failures().is_empty() && reading.resolved.is_some();
            if !keep && reading.resolved.as_ref() != Some(&resolved) {
                reading.resolved = Some(resolved);
                self.discovery.stale = true;
            }
            // The same words may say more by now: they speak for other classes, too.
            self.discovery.stale |= !reading.reservations().is_empty();
            return;
        }
        for call in calls {
            self.ask_for_class(name, call, now);
        }
    }

    /// A class as far as it is honoured: with the gate closed, it selects no reservations.
    fn class_to_read(&self, name: &str) -> Option<Arc<Ec2NodeClass>> {
        let class = self.view.classes().get(name)?;
        let selects = !class.spec.capacity_reservation_selector_terms.is_empty();
        if self.settings.reserved_capacity || !selects {
            return Some(class.clone());
        }
        let mut class = Ec2NodeClass::clone(class);
        class.spec.capacity_reservation_selector_terms.clear();
        Some(Arc::new(class))
    }

    fn ask_for_class(&mut self, class: &str, call: Ec2Call, now: Timestamp) {
        if self.discovery.unsupported.contains(call.name()) {
            let lacking = Err(Ec2Failure {
                kind: Ec2FailureKind::Unsupported,
                code: "Unsupported".to_owned(),
                message: format!("{} was not offered before", call.name()),
            });
            if let Some(reading) = self.discovery.classes.get_mut(class) {
                reading.answers.record(&call, &lacking);
            }
            return;
        }
        let what = match &call {
            Ec2Call::GetParameter(parameter) => parameter.clone(),
            // A class has at most two questions of a kind, which differ in their terms.
            Ec2Call::DescribeImages(terms) => {
                let words = serde_json::to_string(terms).unwrap_or_default();
                super::intent::short_hash(&[words], 6)
            }
            _ => String::new(),
        };
        let key = CallKey::Discover(format!("{} {what} of EC2NodeClass {class}", call.name()));
        if self.calls.call(key.clone(), Call::Ec2(call), now) {
            self.discovery.asked_for.insert(key, class.to_owned());
        }
    }

    pub(super) fn take_discovery(
        &mut self,
        key: &CallKey,
        call: &Call,
        outcome: &Outcome,
        now: Timestamp,
    ) {
        let (Call::Ec2(call), Outcome::Ec2(answer)) = (call, outcome) else { return };
        if let Some(class) = self.discovery.asked_for.remove(key) {
            // Reservations may be lacking as a whole; other calls fail for what they ask.
            if let (Ec2Call::DescribeCapacityReservations(_), Err(failure)) = (call, answer)
                && failure.kind == Ec2FailureKind::Unsupported
            {
                self.discovery.unsupported.insert(call.name());
            }
            if let Some(reading) = self.discovery.classes.get_mut(&class) {
                reading.answers.record(call, answer);
            }
            return;
        }
        let name = call.name();
        match answer {
            Ok(answer) if self.discovery.facts.record(call, answer) => {
                self.discovery.read_at.insert(name, now);
                self.discovery.stale = true;
            }
            Err(failure) if failure.kind == Ec2FailureKind::Unsupported => {
                self.discovery.unsupported.insert(name);
            }
            _ => {}
        }
    }

    fn rebuild_catalogs(&mut self) {
        let flags = CatalogFlags {
            region: self.settings.region.clone(),
            vm_memory_overhead_ppm: self.settings.vm_memory_overhead_ppm,
            reserved_enis: self.settings.reserved_enis,
        };
        let mut catalogs = BTreeMap::new();
        for (name, reading) in &self.discovery.classes {
            let class = self.view.classes().get(name);
            let (Some(class), Some(resolved)) = (class, &reading.resolved) else { continue };
            let mut made = catalog(class, resolved, &self.discovery.facts, &flags);
            made.instance_types.sort_by(|left, right| left.name.cmp(&right.name));
            let offerings = made.instance_types.iter_mut().flat_map(|kind| &mut kind.offerings);
            for one in offerings.filter_map(|offering| offering.reservation.as_mut()) {
                one.free = self.discovery.newest_of(&one.id).map_or(one.free, |(_, free)| free);
            }
            if resolved.is_ready() {
                catalogs.insert(name.clone(), made);
            }
        }
        self.discovery.stale = false;
        if catalogs != self.discovery.catalogs {
            self.discovery.version = self.discovery.version.saturating_add(1);
            self.discovery.catalogs = catalogs;
        }
    }
}
