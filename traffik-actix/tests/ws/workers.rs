//! Several workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::{App, HttpServer, web};
use traffik_actix::WsThrottle;

use crate::client::Client;
use crate::server::{echo, name};
use crate::support::{memory, throttle};

#[actix_web::test]
async fn two_workers_admit_exactly_the_limit_of_one_client() {
    let (limit, each) = (100, 150);
    let (_, backend) = memory();
    let messages = throttle("messages", &format!("{limit}/day"))
        .identify(name)
        .backend(backend)
        .build()
        .unwrap();
    let limits = web::Data::new(WsThrottle::new(messages));
    let connections: [Arc<AtomicUsize>; 2] = Default::default();
    let (seats, next) = (connections.clone(), Arc::new(AtomicUsize::new(0)));
    let server = HttpServer::new(move || {
        let seat = &seats[next.fetch_add(1, Ordering::Relaxed) % 2];
        App::new()
            .app_data(limits.clone())
            .app_data(web::Data::from(Arc::clone(seat)))
            .route(
                "/",
                web::get().to(
                    async |req: actix_web::HttpRequest,
                           body: web::Payload,
                           limits: web::Data<WsThrottle>,
                           seat: web::Data<AtomicUsize>| {
                        seat.fetch_add(1, Ordering::Relaxed);
                        echo(req, body, limits).await
                    },
                ),
            )
    })
    .workers(2)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let addr = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);

    let (mut one, mut two) = (
        Client::connect(addr, "ann").await,
        Client::connect(addr, "ann").await,
    );
    let talk = async |client: &mut Client| {
        for at in 0..each {
            client.say(&at.to_string()).await;
        }
        client.leave().await
    };
    let (one, two) = futures_util::future::join(talk(&mut one), talk(&mut two)).await;
    handle.stop(false).await;
    running.await.unwrap().unwrap();

    let echoes = |heard: &[String]| heard.iter().filter(|text| !text.starts_with('{')).count();
    assert_eq!(echoes(&one) + echoes(&two), limit);
    let seats = connections.map(|seat| seat.load(Ordering::Relaxed));
    assert_eq!(seats, [1, 1], "one connection on each worker");
}
