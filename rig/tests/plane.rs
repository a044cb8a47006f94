//! The control plane, as tests use it.
use std::time::Instant;
use rig::Plane;

#[tokio::test]
async fn a_plane_starts() {
    let t = Instant::now();
    let plane = Plane::start().await.unwrap();
    println!("{:?}", t.elapsed());
    let ns = plane.namespace("x").await.unwrap();
    println!("{:?} {ns}", t.elapsed());
    let v = plane.client().await.unwrap().apiserver_version().await.unwrap();
    println!("{v:?}");
    let t = Instant::now();
    drop(plane);
    println!("down {:?}", t.elapsed());
    let t = Instant::now();
    let n = rig::Nats::start().await.unwrap();
    println!("{:?} {}", t.elapsed(), n.url());
}
