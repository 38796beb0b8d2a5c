//! Packs the relative relocations of the agent's binary, where the C library can unpack them.
//!
//! An executable at a random address has every pointer of its tables corrected at the start. As plain
//! entries these corrections are a twentieth of the file, read once and counted as resident memory from
//! then on; packed (`DT_RELR`, glibc 2.36 and later) they are a hundredth of that. A binary that is
//! linked so asks for such a C library by name (`GLIBC_ABI_DT_RELR`) and refuses to start without.

use std::process::Command;

/// The first glibc whose loader knows packed relocations.
const PACKED_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let native = variable("TARGET") == variable("HOST");
    let gnu = variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if native && gnu && glibc().is_some_and(|version| version >= PACKED_SINCE) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, if it is glibc.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(told.stdout).ok()?;
    let version = text.trim().strip_prefix("glibc ")?;
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
