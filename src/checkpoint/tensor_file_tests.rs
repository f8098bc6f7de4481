use super::*;

fn header_file(dir: &Path, header: &str, data: usize) -> PathBuf {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    let path = dir.join("file.safetensors");
    fs::write(&path, bytes).unwrap();
    path
}

fn refusal(path: &Path) -> String {
    let error = TensorFile::open(path).expect_err("must be refused");
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn mixed_types_scalars_and_empty_tensors_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let values = [1.0, -2.0, 3.5, 0.1, 65504.0, 0.0];
    let entries = vec![
        TensorEntry::from_f32("half", vec![2, 3], &values, Dtype::F16),
        TensorEntry::bytes("bytes", Dtype::U8, vec![3], vec![1, 2, 3]),
        TensorEntry::f32("full", vec![3, 2], &values),
        TensorEntry::lazy("step", Dtype::I64, vec![], || Ok(Cow::Owned(7_i64.to_le_bytes().to_vec()))),
        TensorEntry::f32("empty", vec![0, 4], &[]),
    ];
    write_tensor_file(&path, entries, &[("format", "pt")]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata("format"), Some("pt"));
    assert_eq!(file.shape("half").unwrap(), [2, 3]);
    assert_eq!(file.dtype("bytes").unwrap(), Dtype::U8);
    assert_eq!(file.bytes("bytes").unwrap(), [1, 2, 3]);
    assert_eq!(file.bytes("step").unwrap(), 7_i64.to_le_bytes());
    assert_eq!(file.bytes("empty").unwrap().len(), 0);
    for (name, tolerance) in [("full", 0.0), ("half", 1e-4)] {
        let mut read = [0.0; 6];
        file.read_f32(name, &mut read).unwrap();
        assert!(read.iter().zip(values).all(|(a, b)| (a - b).abs() <= tolerance), "{name}: {read:?}");
    }
    assert!(file.read_f32("full", &mut [0.0; 5]).unwrap_err().to_string().contains("need 20 bytes, found 24"));
    assert!(file.bytes("absent").unwrap_err().to_string().contains("has no tensor absent"));
    assert!(file.read_f32("step", &mut [0.0]).is_err());
    for name in file.names() {
        let size = file.dtype(&name).unwrap().bitsize() / 8;
        assert_eq!((file.bytes(&name).unwrap().as_ptr() as usize) % size, 0, "{name} is not aligned");
    }
}

#[test]
fn a_failed_write_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let cases = [
        vec![TensorEntry::f32("a", vec![3], &[1.0, 2.0])],
        vec![TensorEntry::f32("a", vec![1], &[1.0]), TensorEntry::f32("a", vec![1], &[1.0])],
        vec![TensorEntry::lazy("a", Dtype::F32, vec![1], || Err(Error::failed("the device is gone")))],
        vec![TensorEntry::from_f32("a", vec![1], &[1e30], Dtype::F16)],
        vec![TensorEntry::f32("a", vec![usize::MAX, 2], &[])],
    ];
    for entries in cases {
        let case = format!("{entries:?}");
        assert!(write_tensor_file(&path, entries, &[]).is_err(), "{case}");
        assert!(!path.exists(), "{case}");
    }
}

#[test]
fn malformed_headers_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let f32s = |range: &str, shape: &str| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}"#);
    let huge = u64::MAX;
    let cases = [
        (r#"{"a":"#.to_string(), 0, "not JSON"),
        ("[]".to_string(), 0, "not JSON"),
        ("\u{0}".to_string(), 0, "not JSON"),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#.to_string(), 4, "no data_offsets"),
        (r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#.to_string(), 4, "F99"),
        (format!(r#"{{"a":{}}}"#, f32s("[0,8]", "[2]")), 4, "but 4 follow the header"),
        (format!(r#"{{"a":{}}}"#, f32s("[4,0]", "[1]")), 4, "bytes 4..0"),
        (format!(r#"{{"a":{}}}"#, f32s("[-4,0]", "[1]")), 4, "no data_offsets"),
        (format!(r#"{{"a":{}}}"#, f32s("[0,4]", "[2]")), 4, "not those of its shape"),
        (format!(r#"{{"a":{}}}"#, f32s("[0,4]", "[1]")), 8, "do not fill the 8 bytes"),
        (format!(r#"{{"a":{},"b":{}}}"#, f32s("[0,8]", "[2]"), f32s("[4,12]", "[2]")), 12, "overlaps"),
        (format!(r#"{{"a":{},"b":{}}}"#, f32s("[0,4]", "[1]"), f32s("[8,12]", "[1]")), 12, "leaves a gap"),
        (format!(r#"{{"a":{}}}"#, f32s("[0,4]", &format!("[{huge},2]"))), 4, "overflow"),
        (format!(r#"{{"a":{}}}"#, f32s(&format!("[0,{huge}]"), "[1]")), 4, "but 4 follow"),
    ];
    for (header, data, part) in cases {
        let message = refusal(&header_file(dir.path(), &header, data));
        assert!(message.contains(part), "{header}: {message}");
    }
    let path = dir.path().join("raw");
    for length in [9, 1 << 40, u64::MAX] {
        fs::write(&path, [&length.to_le_bytes()[..], b"{}      "].concat()).unwrap();
        assert!(refusal(&path).contains("but 8 follow"));
    }
    fs::write(&path, b"").unwrap();
    assert!(refusal(&path).contains("0 bytes"));
    assert_eq!(TensorFile::open(&dir.path().join("absent")).unwrap_err().exit_code(), 2);
}

/// Every truncation, and 4,000 random edits of the header, are read or refused, never a panic; what is read lies inside
/// the file.
#[test]
fn no_damage_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let entries = || vec![TensorEntry::f32("a", vec![2, 2], &[0.0; 4]), TensorEntry::f32("b", vec![3], &[1.0; 3])];
    write_tensor_file(&path, entries(), &[]).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        refusal(&path);
    }
    let header = whole.len() - 28;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let at = next(header);
            bytes[at] = if next(2) == 0 { b"0123456789[]{},:\""[next(17)] } else { bytes[at] ^ (1 << next(8)) };
        }
        fs::write(&path, &bytes).unwrap();
        match TensorFile::open(&path) {
            Ok(file) => {
                read += 1;
                file.names().iter().for_each(|name| assert!(file.bytes(name).unwrap().len() <= 28));
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, Error::File { .. }), "{error}");
            }
        }
    }
    assert!(read > 0 && refused > 1000, "{read} read, {refused} refused");
}
