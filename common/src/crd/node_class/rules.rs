//! The CEL rules of an EC2NodeClass.

/// One rule and what is said where it fails.
type Rule = (&'static str, &'static str);

/// Over the whole spec.
pub(super) fn class_rules() -> Vec<Rule> {
    let mut rules = vec![
        ("has(self.role) != has(self.instanceProfile)", "exactly one of role and instanceProfile"),
        (
            "has(self.amiFamily) || self.amiSelectorTerms.exists(x, has(x.alias))",
            "amiFamily is needed where no alias gives it",
        ),
    ];
    rules.extend(FAMILY_RULES);
    rules
}

/// A family and an alias agree.
const FAMILY_RULES: [Rule; 6] = [
    (
        "!has(self.amiFamily) || self.amiFamily != 'AL2' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('al2@'))",
        "amiFamily is that of the alias, or Custom",
    ),
    (
        "!has(self.amiFamily) || self.amiFamily != 'AL2023' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('al2023@'))",
        "amiFamily is that of the alias, or Custom",
    ),
    (
        "!has(self.amiFamily) || self.amiFamily != 'Bottlerocket' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('bottlerocket@'))",
        "amiFamily is that of the alias, or Custom",
    ),
    (
        "!has(self.amiFamily) || self.amiFamily != 'Windows2019' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('windows2019@'))",
        "amiFamily is that of the alias, or Custom",
    ),
    (
        "!has(self.amiFamily) || self.amiFamily != 'Windows2022' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('windows2022@'))",
        "amiFamily is that of the alias, or Custom",
    ),
    (
        "!has(self.amiFamily) || self.amiFamily != 'Windows2025' || \
         self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith('windows2025@'))",
        "amiFamily is that of the alias, or Custom",
    ),
];

pub(super) const SUBNET_RULES: [Rule; 2] = [
    ("self.all(x, has(x.tags) || has(x.id))", "a term has tags or id"),
    ("!self.exists(x, has(x.id) && has(x.tags))", "id excludes tags"),
];

pub(super) const SECURITY_GROUP_RULES: [Rule; 3] = [
    ("self.all(x, has(x.tags) || has(x.id) || has(x.name))", "a term has tags, id or name"),
    ("!self.exists(x, has(x.id) && (has(x.tags) || has(x.name)))", "id excludes tags and name"),
    ("!self.exists(x, has(x.name) && (has(x.tags) || has(x.id)))", "name excludes tags and id"),
];

pub(super) const RESERVATION_RULES: [Rule; 2] = [
    (
        "self.all(x, has(x.tags) || has(x.id) || has(x.instanceMatchCriteria))",
        "a term has tags, id or instanceMatchCriteria",
    ),
    (
        "!self.exists(x, has(x.id) && (has(x.tags) || has(x.ownerID) || \
         has(x.instanceMatchCriteria)))",
        "id excludes tags, ownerID and instanceMatchCriteria",
    ),
];

pub(super) const IMAGE_RULES: [Rule; 4] = [
    (
        "self.all(x, has(x.tags) || has(x.id) || has(x.name) || has(x.alias) || \
         has(x.ssmParameter))",
        "a term has tags, id, name, alias or ssmParameter",
    ),
    (
        "!self.exists(x, has(x.id) && (has(x.alias) || has(x.tags) || has(x.name) || \
         has(x.owner) || has(x.ssmParameter)))",
        "id excludes everything else",
    ),
    (
        "!self.exists(x, has(x.alias) && (has(x.id) || has(x.tags) || has(x.name) || \
         has(x.owner) || has(x.ssmParameter)))",
        "alias excludes everything else",
    ),
    ("!(self.exists(x, has(x.alias)) && self.size() != 1)", "a term with an alias is the only one"),
];

pub(super) const ALIAS_RULES: [Rule; 2] = [
    (
        "self.matches('^(al2|al2023|bottlerocket|windows2019|windows2022|windows2025)@.+$')",
        "an alias is family@version, with the family al2, al2023, bottlerocket, windows2019, \
         windows2022 or windows2025",
    ),
    (
        "!self.startsWith('windows') || self.endsWith('@latest')",
        "Windows images have the version latest alone",
    ),
];

pub(super) const DISK_RULES: [Rule; 1] = [(
    "self.filter(x, has(x.rootVolume) && x.rootVolume).size() <= 1",
    "at most one disk has rootVolume",
)];

pub(super) const VOLUME_RULES: [Rule; 2] = [
    ("has(self.snapshotID) || has(self.volumeSize)", "snapshotID or volumeSize is needed"),
    (
        "!has(self.volumeInitializationRate) || has(self.snapshotID)",
        "volumeInitializationRate needs snapshotID",
    ),
];

pub(super) const INTERFACE_RULES: [Rule; 3] = [
    (
        "self.size() == 0 || self.exists(x, x.networkCardIndex == 0 && x.deviceIndex == 0 && \
         x.interfaceType == 'interface')",
        "the first device of the first card is an interface",
    ),
    (
        "self.all(x, self.exists_one(y, x.networkCardIndex == y.networkCardIndex && \
         x.deviceIndex == y.deviceIndex))",
        "a device of a card is named once",
    ),
    (
        "self.all(x, self.filter(y, y.networkCardIndex == x.networkCardIndex && \
         y.interfaceType == 'efa-only').size() <= 1)",
        "a card has at most one efa-only interface",
    ),
];

pub(super) const PLACEMENT_RULES: [Rule; 1] =
    [("has(self.name) != has(self.id)", "exactly one of name and id")];

pub(super) const TRACKING_RULES: [Rule; 1] = [(
    "has(self.tcpEstablishedTimeout) || has(self.udpStreamTimeout) || has(self.udpTimeout)",
    "at least one timeout",
)];
