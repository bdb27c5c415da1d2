use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A balancer's part that takes callers of one port, and its address.
async fn balancer() -> (Arc<Shared>, SocketAddr) {
    let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(0) });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(take_callers(80, listener, shared.clone()));
    (shared, address)
}

fn serve(shared: &Shared, backends: &[(&str, SocketAddr)], holds: bool) {
    let backend =
        |(name, address): &(&str, SocketAddr)| ((*name).to_owned(), BTreeMap::from([(80, *address)]));
    let backends = backends.iter().map(backend).collect();
    shared.decide(|state| state.serve(&Service { backends, holds, ..Service::default() }));
    shared.has_changed();
}

/// Somebody who says, once a caller has ended its part, how much that was.
async fn counter() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(all.len().to_string().as_bytes()).await.unwrap();
            });
        }
    });
    address
}

/// Somebody who takes connections and breaks them off at once.
async fn refuser() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    });
    address
}

async fn count(address: SocketAddr, bytes: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&vec![7; bytes]).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_caller_who_has_ended_its_part_still_gets_the_answer() {
    let (shared, address) = balancer().await;
    serve(&shared, &[("a", counter().await)], false);
    assert_eq!(count(address, 0).await.unwrap(), "0");
    assert_eq!(count(address, 3_000_000).await.unwrap(), "3000000");
}

#[tokio::test]
async fn who_takes_connections_without_answering_gets_nothing_sent_and_another_answers() {
    let (shared, address) = balancer().await;
    serve(&shared, &[("a", refuser().await), ("b", counter().await)], false);
    for _ in 0..10 {
        assert_eq!(count(address, 10).await.unwrap(), "10");
    }
}

#[tokio::test]
async fn a_caller_is_held_until_somebody_is_in_service() {
    let (shared, address) = balancer().await;
    serve(&shared, &[], true);
    let held = tokio::spawn(count(address, 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!held.is_finished());
    serve(&shared, &[("a", counter().await)], true);
    assert_eq!(held.await.unwrap().unwrap(), "5");
    serve(&shared, &[], false);
    assert!(count(address, 5).await.is_err(), "nobody comes any more");
}
