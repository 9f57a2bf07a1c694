/**
 * The messages of a TensorBoard event file. Field numbers are those of TensorFlow's event.proto and summary.proto:
 * Event { 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log },
 * Summary.Value { 1 tag, 2 simple_value, 5 histo, 8 tensor, 9 metadata }.
 */
import type { Histogram } from './histogram.js';
import { MessageWriter } from './protobuf.js';

/** When something happened: seconds since 1970 and the training step. */
export interface Moment {
  wallTime: number;
  step: number;
}

function event(moment: Moment, write: (event: MessageWriter) => void): Uint8Array {
  const message = new MessageWriter().double(1, moment.wallTime).integer(2, moment.step);
  write(message);
  return message.finish();
}

function value(moment: Moment, tag: string, write: (value: MessageWriter) => void): Uint8Array {
  return event(moment, (message) =>
    message.message(5, (summary) => summary.message(1, (entry) => write(entry.string(1, tag)))),
  );
}

/** The first event of every file. */
export function versionEvent(wallTime: number): Uint8Array {
  return new MessageWriter().double(1, wallTime).string(3, 'brain.Event:2').finish();
}

/** Tells TensorBoard to forget what an interrupted run wrote at and after `moment.step`. */
export function restartEvent(moment: Moment): Uint8Array {
  const start = 1;
  return event(moment, (message) => message.message(7, (log) => log.integer(1, start)));
}

/** A point of a curve. */
export function scalarEvent(moment: Moment, tag: string, scalar: number): Uint8Array {
  return value(moment, tag, (entry) => entry.float(2, scalar));
}

/** A distribution. */
export function histogramEvent(moment: Moment, tag: string, histogram: Histogram): Uint8Array {
  return value(moment, tag, (entry) =>
    entry.message(5, (message) =>
      message
        .double(1, histogram.min)
        .double(2, histogram.max)
        .double(3, histogram.count)
        .double(4, histogram.sum)
        .double(5, histogram.sumOfSquares)
        .packedDoubles(6, histogram.limits)
        .packedDoubles(7, histogram.buckets),
    ),
  );
}

/** A text, shown as Markdown. */
export function textEvent(moment: Moment, tag: string, text: string): Uint8Array {
  const stringType = 7;
  return value(moment, tag, (entry) =>
    entry
      .message(8, (tensor) =>
        tensor
          .integer(1, stringType)
          .message(2, (shape) => shape.message(2, (dimension) => dimension.integer(1, 1)))
          .string(8, text),
      )
      .message(9, (metadata) => metadata.message(1, (plugin) => plugin.string(1, 'text'))),
  );
}
