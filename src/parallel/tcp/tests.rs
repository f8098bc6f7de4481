use std::sync::Arc;

use super::*;
use crate::parallel::Collective;
use crate::parallel::hosted::Hosted;
use crate::parallel::watchdog::Watchdog;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ranks that are threads, and meet at a port of the loopback.
fn on_ranks<R: Send>(size: usize, work: impl Fn(Arc<dyn Collective>) -> R + Sync) -> Vec<R> {
    let meeting = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = Address { host: "localhost".into(), port: meeting.local_addr().unwrap().port() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Somebody who has mistaken the port.
            let mut stranger = TcpStream::connect(("127.0.0.1", address.port)).unwrap();
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        });
        scope.spawn(|| serve(&meeting, size, Instant::now() + PATIENCE));
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let (address, work) = (&address, &work);
                scope.spawn(move || {
                    let mesh = join(address, rank, size, false, PATIENCE).unwrap();
                    let group: Arc<dyn Collective> = Arc::new(Hosted::new(mesh, Watchdog::idle()));
                    let result = work(group.clone());
                    group.barrier();
                    result
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Larger than what sockets hold, smaller than a word's worth of bytes, and nothing.
#[test]
fn exchanges_of_all_sizes() {
    for size in [2, 3, 5] {
        for len in [1, 7, 1 << 10, 3 << 20] {
            let parts: Vec<_> = (0..size).map(|rank| rank * len / size..(rank + 1) * len / size).collect();
            let values = |rank: usize| -> Vec<f32> { (0..len).map(|i| (i % 1000) as f32 + rank as f32).collect() };
            let sum: Vec<f32> = (0..len).map(|i| (0..size).map(|rank| (i % 1000 + rank) as f32).sum()).collect();
            let found = on_ranks(size, |group| {
                let mut all = values(group.rank());
                group.all_reduce(&mut all, &parts);
                let own = group.reduce_scatter(&values(group.rank()), &parts);
                let gathered = group.all_gather(bytemuck::cast_slice(&own), &parts);
                let said = group.broadcast(format!("from {}", group.rank()).as_bytes(), size - 1);
                let texts = group.gather("x".repeat(group.rank() * 5000).as_bytes());
                (all, gathered, said, texts.iter().map(Vec::len).collect::<Vec<_>>())
            });
            for (all, gathered, said, texts) in found {
                assert!(all == sum && bytemuck::cast_slice::<u32, f32>(&gathered) == sum);
                assert_eq!(said, format!("from {}", size - 1).as_bytes());
                assert_eq!(texts, (0..size).map(|rank| rank * 5000).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn the_first_rank_serves_where_nobody_else_does() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let address = Address { host: "127.0.0.1".into(), port };
    let sums = std::thread::scope(|scope| {
        let ranks = [1usize, 0].map(|rank| {
            let address = &address;
            scope.spawn(move || {
                // The one that serves comes last.
                std::thread::sleep(Duration::from_millis(300) * (1 - rank as u32));
                let mesh = join(address, rank, 2, true, PATIENCE).unwrap();
                let mut sum = [rank as f64 + 1.0];
                Hosted::new(mesh, Watchdog::idle()).sums(&mut sum);
                sum[0]
            })
        });
        ranks.map(|rank| rank.join().unwrap())
    });
    assert_eq!(sums, [3.0, 3.0]);
}

#[test]
fn what_keeps_ranks_apart_is_said() {
    let meeting = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = Address { host: "127.0.0.1".into(), port: meeting.local_addr().unwrap().port() };
    std::thread::spawn(move || serve(&meeting, 2, Instant::now() + PATIENCE));
    let refused = |rank, size| join(&address, rank, size, false, PATIENCE).err().unwrap().to_string();
    assert!(refused(0, 3).contains("knows of 3 ranks"));
    let meeting = address.clone();
    let first = std::thread::spawn(move || join(&meeting, 0, 2, false, PATIENCE));
    let twice = loop {
        // Whichever of the two rank 0s comes second.
        let short = Duration::from_millis(400);
        let message = join(&address, 0, 2, false, short).err().unwrap().to_string();
        if message.contains("two processes") {
            break message;
        }
        assert!(message.contains("within --timeout"), "{message}");
    };
    assert!(twice.contains("its own RANK"), "{twice}");
    let _ = join(&address, 1, 2, false, Duration::from_secs(2));
    let _ = first.join();

    let nobody = Address { host: "127.0.0.1".into(), port: 1 };
    let message = join(&nobody, 1, 2, false, Duration::from_millis(200)).err().unwrap().to_string();
    assert!(message.contains("does not find the others at 127.0.0.1:1"), "{message}");
}
