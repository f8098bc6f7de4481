//! The protocol buffer messages of an event file and the records around them.
//!
//! Fields and numbers are those of tensorboard/compat/proto/event.proto and summary.proto; the framing is that of
//! TensorFlow's record files (tensorflow/core/lib/io/record_writer.h): length, its checksum, data, its checksum.

/// Numbers of a step, or one of the marks at the beginning of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The first event of a file.
    FileVersion,
    /// A process begins to write: readers forget what an earlier one wrote of this step and later ones.
    SessionStart,
    /// (tag, value) each.
    Scalars(&'a [(&'a str, f32)]),
}

/// The newest file version, in which `SessionStart` counts.
const FILE_VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const START: u64 = 1;

impl Event<'_> {
    /// The message `Event`. `wall_time` is in seconds since 1970.
    fn message(&self, wall_time: f64, step: u64) -> Vec<u8> {
        let mut event = Vec::new();
        put_double(&mut event, 1, wall_time);
        // Zero is what a field that is absent means.
        if step > 0 {
            put_varint_field(&mut event, 2, step);
        }
        match self {
            Self::FileVersion => put_bytes(&mut event, 3, FILE_VERSION.as_bytes()),
            Self::SessionStart => {
                let mut session = Vec::new();
                put_varint_field(&mut session, 1, START);
                put_bytes(&mut event, 7, &session);
            }
            Self::Scalars(scalars) => {
                let mut summary = Vec::new();
                for (tag, value) in *scalars {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, tag.as_bytes());
                    put_float(&mut entry, 2, *value);
                    put_bytes(&mut summary, 1, &entry);
                }
                put_bytes(&mut event, 5, &summary);
            }
        }
        event
    }

    /// The record of a file that holds it.
    pub fn record(&self, wall_time: f64, step: u64) -> Vec<u8> {
        let message = self.message(wall_time, step);
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc(&length).to_le_bytes());
        record.extend_from_slice(&message);
        record.extend_from_slice(&masked_crc(&message).to_le_bytes());
        record
    }
}

/// CRC-32C, turned and shifted so that a checksum of data that holds checksums is no weaker.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    put_key(out, field, VARINT);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_float(out: &mut Vec<u8>, field: u64, value: f32) {
    put_key(out, field, FIXED_32);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, LENGTH_DELIMITED);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As TensorBoard 2.21's own classes write them: `tests/data/read_tensorboard.py --golden` prints these.
    #[test]
    fn records_are_those_of_tensorboard() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(Event::FileVersion.record(1.5, 0)), GOLDEN[0]);
        assert_eq!(hex(Event::SessionStart.record(1.5, 300)), GOLDEN[1]);
        let scalars = [("loss/train", 2.25), ("optimizer/lr", f32::NAN)];
        assert_eq!(hex(Event::Scalars(&scalars).record(1.5, 300)), GOLDEN[2]);
    }

    const GOLDEN: [&str; 3] = [
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
        "100000000000000095fbfe1809000000000000f83f10ac023a020801713b788a",
        concat!(
            "36000000000000004f578cef09000000000000f83f10ac022a280a110a0a6c6f73732f747261696e15000010400a130a0c6f7074696d",
            "697a65722f6c72150000c07fe9418916"
        ),
    ];
}
