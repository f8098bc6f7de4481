#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard's own reader and prints {tag: [[step, value], ...]} as JSON.

    pip install tensorboard
    read_tensorboard.py RUN/tensorboard     what TensorBoard shows of them
    read_tensorboard.py --golden            what src/report/tensorboard/event.rs is held against, as hexadecimal
"""
import io
import json
import sys


def shown(directory):
    from tensorboard.backend.event_processing import event_accumulator

    # 0: every point, where TensorBoard itself samples 1,000.
    reader = event_accumulator.EventAccumulator(directory, size_guidance={event_accumulator.TENSORS: 0,
                                                                          event_accumulator.SCALARS: 0})
    reader.Reload()
    return {tag: [[scalar.step, scalar.value] for scalar in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def golden():
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    values = [summary_pb2.Summary.Value(tag="loss/train", simple_value=2.25),
              summary_pb2.Summary.Value(tag="optimizer/lr", simple_value=float("nan"))]
    for event in [event_pb2.Event(wall_time=1.5, file_version="brain.Event:2"),
                  event_pb2.Event(wall_time=1.5, step=300, session_log=event_pb2.SessionLog(status="START")),
                  event_pb2.Event(wall_time=1.5, step=300, summary=summary_pb2.Summary(value=values))]:
        file = io.BytesIO()
        RecordWriter(file).write(event.SerializeToString())
        print(file.getvalue().hex())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--golden":
        golden()
    else:
        json.dump(shown(sys.argv[1]), sys.stdout)
