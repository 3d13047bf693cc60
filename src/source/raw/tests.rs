use super::*;
use crate::input::Batch;
use crate::wire::decode::decode;
use crate::wire::record::Record;

#[test]
fn scratch_shared() {
    let Ok(root) = std::env::var("RAW_ROOT") else { return };
    for group in ["split", "split15", "merged"] {
        for dir in std::fs::read_dir(Path::new(&root).join(group)).unwrap() {
            let dir = dir.unwrap().path();
            let raw = Raw::open(&dir).unwrap();
            let (mut batches, mut text, mut lost) = (vec![], vec![], 0);
            let _ = raw.play(&mut |i: Input<'_>| {
                match i {
                    Input::Batch(b) => {
                        batches.push((b.seq, b.capacity, b.events.len(), b.before.0, b.after.0))
                    }
                    Input::Stdout { bytes, .. } => text.extend_from_slice(bytes),
                    Input::BatchesLost { .. } => lost += 1,
                    _ => {}
                }
                ControlFlow::Continue(())
            });
            let ks = raw
                .stdout
                .as_ref()
                .unwrap()
                .split(|b| *b == b'\n')
                .filter(|l| l.starts_with(b"K "))
                .count();
            let (mut marks, mut agree, mut bad, mut kleft, mut safe) = (0, 0, 0, 0, 0);
            let mut last = 0;
            for line in text.split(|b| *b == b'\n') {
                match decode(line) {
                    Ok(Some(Record::Mark(m))) => {
                        marks += 1;
                        let b = batches.iter().find(|b| b.1 == m.capacity && b.0 >= last).unwrap();
                        assert_eq!(b.1, Batch::capacity_of(b.0));
                        last = b.0;
                        agree += (b.2 as i32 == m.returned) as u32;
                        safe += (m.entered < m.at) as u32;
                    }
                    Ok(Some(Record::Kevent { .. })) => kleft += 1,
                    Ok(_) => {}
                    Err(_) => bad += 1,
                }
            }
            println!(
                "{:<40} batches {} K {ks} marks {marks} n-agree {agree} kleft {kleft} bad {bad} lost {lost} safe {safe}",
                dir.strip_prefix(&root).unwrap().display(),
                batches.len()
            );
        }
    }
}
