# `just verify` never writes; `just fix` may.

default:
    @just --list

# Everything CI runs.
verify:
    .ci/run

# Formats and applies what clippy can fix.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty

# Every test of the workspace.
test:
    cargo test --workspace

# The main job on the embedded sandbox, ending after the tour.
tour *ARGS:
    cargo run -- sandbox --exit {{ARGS}}

# Leaders and agents against a genuine API server and moto.
kubeapi *ARGS:
    tests/kubeapi/run {{ARGS}}

# Writes deploy/crds from the Rust types.
crds:
    cargo run -- crds --write deploy/crds

# Licences, banned crates, sources.
deny:
    cargo deny check bans licenses sources
