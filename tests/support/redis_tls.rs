use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::Process;

/// A Redis of our own that speaks nothing but TLS.
#[derive(Debug)]
pub(crate) struct TlsRedis {
    process: Process,
    certificates: Certificates,
}

impl TlsRedis {
    /// One whose certificate is for 127.0.0.1, signed by [`Certificates::roots`].
    pub(crate) fn start_with(settings: &[&str]) -> TlsRedis {
        let certificates = Certificates::make();
        let process = Process::start("redis-server", |port, directory| {
            let (port, directory) = (port.to_string(), directory.display().to_string());
            let file = |name| certificates.path(name).display().to_string();
            let own = [
                ["--port", "0"],
                ["--tls-port", &port],
                ["--dir", &directory],
                ["--save", ""],
                ["--bind", "127.0.0.1"],
                ["--tls-cert-file", &file("server.pem")],
                ["--tls-key-file", &file("server.key")],
                ["--tls-ca-cert-file", &file("ca.pem")],
            ];
            let own = own.iter().flatten();
            own.chain(settings).map(ToString::to_string).collect()
        });
        TlsRedis {
            process,
            certificates,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.process.port())
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Sends a command by other means than what is tested.
    pub(crate) fn command(&self, words: &[&str]) {
        let said = Command::new("redis-cli")
            .args(["-p", &self.process.port().to_string(), "--tls", "--cacert"])
            .arg(self.certificates.path("ca.pem"))
            .args(words)
            .output()
            .expect("redis-cli: apt-get install redis-tools");
        assert!(
            said.status.success() && said.stdout.starts_with(b"OK"),
            "{said:?}"
        );
    }
}

/// A root, and what it has signed for a server and a client.
#[derive(Debug)]
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    pub(crate) fn make() -> Certificates {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "traffik-{}-certificates-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory for certificates");
        let made = Certificates(directory);
        // Without the system's settings, which make everybody an authority.
        let empty = "[req]\ndistinguished_name = name\n[name]\n";
        std::fs::write(made.path("openssl.cnf"), empty).expect("a configuration");
        made.sign("ca", "basicConstraints=critical,CA:TRUE", &[]);
        let by_root = ["-CA", "ca.pem", "-CAkey", "ca.key"];
        made.sign("server", "subjectAltName=IP:127.0.0.1", &by_root);
        made.sign("client", "subjectAltName=DNS:client", &by_root);
        made
    }

    fn sign(&self, name: &str, extension: &str, by: &[&str]) {
        let signed = Command::new("openssl")
            .current_dir(&self.0)
            .args([
                "req",
                "-x509",
                "-config",
                "openssl.cnf",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", &format!("/CN={name}"), "-addext", extension])
            .args(["-out", &format!("{name}.pem")])
            .args(["-keyout", &format!("{name}.key")])
            .args(by)
            .output()
            .expect("openssl: apt-get install openssl");
        assert!(signed.status.success(), "{signed:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in PEM: `ca`, `server` or `client`, `.pem` or `.key`.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a certificate or key")
    }

    pub(crate) fn roots(&self) -> Vec<u8> {
        self.read("ca.pem")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
