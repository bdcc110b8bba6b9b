//! Tenants that have a Redis each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpRequest, web};
use traffik_actix::{HttpThrottle, OnError, Tenants, ThrottleBackend, ThrottleMiddleware};
use traffik_core::{BackendExt, ManualClock};

use crate::support::{PATIENCE, RedisServer};

fn tenant(req: &HttpRequest) -> String {
    req.match_info()
        .get("tenant")
        .unwrap_or_default()
        .to_owned()
}

/// Two servers, and tenants called by their number.
struct Service {
    servers: [RedisServer; 2],
    tenants: Tenants,
    clock: ManualClock,
    made: Arc<AtomicUsize>,
}

fn service() -> Service {
    let servers = [RedisServer::start(), RedisServer::start()];
    let urls = [servers[0].url(), servers[1].url()];
    let (clock, made) = (ManualClock::default(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&made);
    let tenants = Tenants::new_async(async move |name: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        let at: usize = name.parse().map_err(|_| "no number")?;
        let url = urls.get(at).ok_or("no such tenant")?;
        let backend = traffik_core::RedisBackend::builder(url).deadline(Duration::from_secs(10));
        let backend = backend.build().map(ThrottleBackend::new);
        backend.map_err(|_| "no such server")
    });
    Service {
        servers,
        tenants: tenants.clock(clock.clone()),
        clock,
        made,
    }
}

/// How many connections there are, but for the one that asks.
fn connections(server: &RedisServer) -> usize {
    let list: String = server.command(&["CLIENT", "LIST", "TYPE", "normal"]);
    list.lines()
        .filter(|line| !line.contains("cmd=client"))
        .count()
}

/// On this thread, which has to hang up in between.
async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Issue 10, 3: the original's example of many tenants cost a connection for each request.
#[test]
fn tenants_have_exact_counts_and_one_connection_until_they_are_idle() {
    actix_rt::System::new().block_on(async {
        let service = service();
        let api = HttpThrottle::builder("tenants")
            .rate("5/day")
            .build()
            .unwrap();
        let scope = web::scope("/{tenant}")
            .wrap(api)
            .wrap(service.tenants.by(tenant))
            .route("/", web::get().to(async || "hello"));
        let app = init_service(App::new().service(scope)).await;
        let status = async |tenant: usize| {
            let req = TestRequest::get().uri(&format!("/{tenant}/"));
            call_service(&app, req.to_request()).await.status().as_u16()
        };
        let before = service
            .servers
            .each_ref()
            .map(|server| server.connections());
        for turn in 0..20 {
            for tenant in [0, 1] {
                let expected = if turn < 5 { 200 } else { 429 };
                assert_eq!(status(tenant).await, expected, "{turn} {tenant}");
            }
            assert_eq!(status(7).await, 400);
        }
        for (server, before) in service.servers.iter().zip(before) {
            assert_eq!(server.keys().len(), 1);
            // One for the tenant, and those of the test itself: that of `KEYS`, and this one.
            assert_eq!(server.connections() - before, 1 + 2);
            assert_eq!(connections(server), 1);
        }
        // 7 was asked for once: the clock stands still.
        assert_eq!(service.made.load(Ordering::Relaxed), 3);

        service.clock.advance(Duration::from_secs(599));
        assert_eq!(status(1).await, 429);
        service.clock.advance(Duration::from_secs(1));
        assert_eq!(service.tenants.sweep().await, 1);
        wait_until("the idle tenant is hung up on", || {
            connections(&service.servers[0]) == 0
        })
        .await;
        assert_eq!(connections(&service.servers[1]), 1);
        // It is back when it is needed, with the counts that it had.
        assert_eq!(status(0).await, 429);
        assert_eq!(connections(&service.servers[0]), 1);
        service.tenants.ready().await.unwrap();
        service.tenants.close().await;
        wait_until("all are hung up on", || {
            service
                .servers
                .iter()
                .all(|server| connections(server) == 0)
        })
        .await;
    });
}

#[test]
fn a_tenant_whose_redis_is_dead_does_not_hurt_others() {
    actix_rt::System::new().block_on(async {
        let mut service = service();
        let tenants = service.tenants.clone();
        let api = HttpThrottle::builder("tenants and a dead one")
            .rate("5/day")
            .backend_by_async(async move |req: &HttpRequest| tenants.open(&tenant(req)).await)
            .on_error(OnError::Raise)
            .build()
            .unwrap();
        let scope = web::scope("/{tenant}")
            .wrap(ThrottleMiddleware::new(api))
            .route("/", web::get().to(async || "hello"));
        let app = init_service(App::new().service(scope)).await;
        let status = async |tenant: usize| {
            let req = TestRequest::get().uri(&format!("/{tenant}/"));
            call_service(&app, req.to_request()).await.status().as_u16()
        };
        assert_eq!([status(0).await, status(1).await], [200; 2]);
        service.servers[0].kill();
        for expected in [200, 200, 200, 200, 429] {
            assert_eq!([status(0).await, status(1).await], [503, expected]);
        }
        let ill = service.tenants.ready().await.unwrap_err();
        let names: Vec<_> = ill.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["0"]);
        service.servers[0].resurrect();
        assert_eq!([status(0).await, status(1).await], [200, 429]);
        service.tenants.ready().await.unwrap();
    });
}

/// Tenants may share a server, under namespaces of their own.
#[test]
fn whatever_a_name_is_its_keys_are_its_own() {
    actix_rt::System::new().block_on(async {
        let server = RedisServer::start();
        let url = server.url();
        let tenants = Tenants::new(move |name: &str| {
            let backend = traffik_core::RedisBackend::builder(&url).namespace(name);
            backend.build().map(ThrottleBackend::new)
        });
        let api = HttpThrottle::builder("namespaces")
            .rate("1/day")
            .build()
            .unwrap();
        let ann = traffik_actix::Identity::of("ann");
        for name in ["a", "b", "a-b", &"x".repeat(128)] {
            let backend = tenants.open(name).await.unwrap();
            let hit = async || api.by(&ann).on(&backend).hit().await.unwrap().is_allowed();
            assert!(hit().await && !hit().await, "{name}");
        }
        for name in ["", "a b", "*", "a\r\nFLUSHALL", "{a}", &"x".repeat(129)] {
            let error = tenants.open(name).await.unwrap_err();
            assert!(error.is_unresolved(), "{name:?} {error}");
        }
        assert_eq!(server.keys().len(), 4);
        let lengths = server.keys().into_iter().map(|key| key.len());
        let mut lengths: Vec<_> = lengths.collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [84, 84, 86, 211]);
    });
}

/// Of a failover the store is asked, not what stands in for it.
#[test]
fn a_store_that_is_away_is_not_ready() {
    use traffik_core::{CircuitBreaker, Lease, MemoryBackend};
    actix_rt::System::new().block_on(async {
        let mut server = RedisServer::start();
        let redis = || server.builder().build().unwrap();
        let all: [ThrottleBackend; 5] = [
            redis().into(),
            redis().guarded(CircuitBreaker::new()).into(),
            redis()
                .failover(MemoryBackend::new(), CircuitBreaker::new())
                .into(),
            redis().lease(Lease::new()).into(),
            redis().deadline(Duration::from_secs(10)).into(),
        ];
        for backend in &all {
            backend.ready().await.unwrap();
        }
        server.kill();
        for backend in &all {
            backend.ready().await.unwrap_err();
        }
        server.resurrect();
        for backend in &all {
            backend.ready().await.unwrap();
        }
        // It answers, and yet decides nothing.
        server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        for backend in &all {
            backend.ready().await.unwrap_err();
        }
    });
}
