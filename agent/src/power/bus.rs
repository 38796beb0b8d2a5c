//! logind and systemd as the bus shows them (org.freedesktop.login1(5), org.freedesktop.systemd1(5)).

use std::path::Path;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{OwnedFd, proxy};

/// A bus or a daemon that does not answer in this time has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// logind.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(super) trait Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    fn power_off(&self, interactive: bool) -> zbus::Result<()>;

    #[zbus(signal)]
    fn prepare_for_shutdown(&self, begins: bool) -> zbus::Result<()>;

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;

    /// How long a shutdown waits for locks, microseconds. The kubelet raises it to what its own
    /// graceful shutdown needs.
    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;
}

/// systemd.
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Systemd {
    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;
}

/// Who rules the machine's power.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) login: LoginProxy<'static>,
    pub(super) systemd: SystemdProxy<'static>,
    /// Begins and ends of shutdowns, from before anything was asked.
    pub(super) signals: PrepareForShutdownStream,
}

impl Machine {
    /// Connects to the bus.
    ///
    /// # Errors
    /// There is none, it refuses, or it does not answer.
    pub(super) async fn reach(socket: &Path) -> zbus::Result<Self> {
        let reached = tokio::time::timeout(TIMEOUT, Self::connect(socket)).await;
        reached.unwrap_or_else(|_elapsed| Err(zbus::Error::Failure("no answer".to_owned())))
    }

    async fn connect(socket: &Path) -> zbus::Result<Self> {
        let failed = |error: std::io::Error| zbus::Error::Failure(error.to_string());
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(failed)?;
        let stream = stream.into_std().map_err(failed)?;
        let bus = Builder::unix_stream(stream).method_timeout(TIMEOUT).build().await?;
        let no = CacheProperties::No;
        let login = LoginProxy::builder(&bus).cache_properties(no).build().await?;
        let systemd = SystemdProxy::builder(&bus).cache_properties(no).build().await?;
        let signals = login.receive_prepare_for_shutdown().await?;
        Ok(Self { login, systemd, signals })
    }
}
