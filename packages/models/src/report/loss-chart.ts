import type { EChartsOption, LineSeriesOption } from 'echarts';
import { quotedLoss } from '../training/metrics/index.js';
import type { Run } from './read-run.js';
import { axisStyle, colours, inkColour, titleStyle } from './theme.js';

type Point = [x: number, y: number];

/**
 * Loss curves of some runs: thin lines for the training loss (smoothed), thick ones with points for validation.
 *
 * @param over what the horizontal axis shows; seconds are those spent in training steps
 */
export function lossChart(runs: readonly Run[], over: 'step' | 'seconds'): EChartsOption {
  const unit = runs[0]?.start.unit ?? 'character';
  const quote = (nats: number): number => quotedLoss(nats, unit).value;
  const curves = runs.map((run, index) => ({
    name: run.name,
    colour: colours[index % colours.length]!,
    train: smoothed(run.train.map((record): Point => [record[over], quote(record.loss)])),
    valid: run.evaluations
      .filter((record) => record.split === 'valid')
      .map((record): Point => [record[over], quote(record.loss)]),
  }));
  const [low, high] = range(curves.flatMap((curve) => [...late(curve.train), ...late(curve.valid)]));
  const series = curves.flatMap(({ name, colour, train, valid }): LineSeriesOption[] => [
    {
      type: 'line',
      name: `${name}, training`,
      data: train,
      showSymbol: false,
      clip: true,
      lineStyle: { color: colour, width: 1.2, opacity: 0.45 },
      itemStyle: { color: colour, opacity: 0.45 },
    },
    {
      type: 'line',
      name: `${name}, validation`,
      data: valid,
      symbol: 'circle',
      symbolSize: 6,
      clip: true,
      lineStyle: { color: colour, width: 2.4 },
      itemStyle: { color: colour },
      endLabel: {
        show: true,
        color: colour,
        fontWeight: 'bold',
        textBorderColor: '#ffffff',
        textBorderWidth: 3,
        formatter: ({ value }) => (value as Point)[1].toFixed(3),
      },
      labelLayout: { moveOverlap: 'shiftY' },
    },
  ]);
  return {
    title: {
      text: `${capital(quotedLoss(0, unit).name)} over ${over === 'step' ? 'steps' : 'seconds'}`,
      ...titleStyle,
    },
    legend: { top: 34, left: 12, itemWidth: 22, itemGap: 34, textStyle: { color: inkColour } },
    grid: { left: 64, right: 66, top: 76, bottom: 52 },
    xAxis: {
      type: 'value',
      min: 0,
      max: Math.ceil(Math.max(1, ...curves.flatMap((c) => [...c.train, ...c.valid].map(([x]) => x)))),
      name: over === 'step' ? 'training step' : 'seconds in training steps',
      nameLocation: 'middle',
      nameGap: 30,
      ...axisStyle,
      axisLabel: { ...axisStyle.axisLabel, showMaxLabel: false },
    },
    yAxis: {
      type: 'value',
      min: low,
      max: high,
      name: quotedLoss(0, unit).name,
      nameLocation: 'middle',
      nameGap: 42,
      ...axisStyle,
      axisLabel: { ...axisStyle.axisLabel, formatter: (tick: number) => tick.toFixed(1) },
    },
    series,
  };
}

/** The points after the first tenth, where the steep fall from the start is over. */
function late(points: readonly Point[]): number[] {
  const end = points[points.length - 1]?.[0] ?? 0;
  return points.filter(([x]) => x >= end * 0.1).map(([, y]) => y);
}

/** Axis limits around the values, on tenths. */
function range(values: readonly number[]): [number, number] {
  if (values.length === 0) return [0, 1];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = Math.max(0.02, (high - low) * 0.06);
  return [Math.floor((low - margin) * 10) / 10, Math.ceil((high + margin) * 10) / 10];
}

/** A moving average over a twentieth of the points to both sides, so that the curve shows through the noise. */
function smoothed(points: readonly Point[]): Point[] {
  const reach = Math.floor(points.length / 40);
  return points.map(([x], index) => {
    const side = Math.min(reach, index, points.length - 1 - index);
    const window = points.slice(index - side, index + side + 1);
    return [x, window.reduce((sum, [, y]) => sum + y, 0) / window.length];
  });
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
