import type { EChartsOption, LineSeriesOption } from 'echarts';
import { imbalance } from '../training/metrics/index.js';
import type { Run } from './read-run.js';
import { axisStyle, colours, inkColour, titleStyle } from './theme.js';

/**
 * How uneven the experts of each layer were loaded over the steps of a run: the largest load divided by the mean; dashed, where
 * tokens were dropped, the share of the slots that no expert took.
 */
export function loadOverTime(run: Run): EChartsOption {
  const layers = run.train[0]?.expertLoad.length ?? 0;
  const series = Array.from({ length: layers }, (_, layer): LineSeriesOption[] => {
    const color = colours[layer % colours.length] as string;
    const dropped = run.train.map(({ step, droppedShare }) => [step, droppedShare?.[layer] ?? 0]);
    const line = (name: string, data: number[][], more: LineSeriesOption): LineSeriesOption => ({
      type: 'line',
      name,
      data,
      showSymbol: false,
      itemStyle: { color },
      ...more,
    });
    return [
      line(
        `layer ${layer}`,
        run.train.map(({ step, expertLoad }) => [
          step,
          Number(imbalance(expertLoad[layer] ?? []).toFixed(4)),
        ]),
        { lineStyle: { color, width: 1.6 } },
      ),
      ...(dropped.some(([, share]) => share !== 0)
        ? [
            line(`layer ${layer}, dropped`, dropped, {
              yAxisIndex: 1,
              lineStyle: { color, width: 1.2, type: 'dashed' },
            }),
          ]
        : []),
    ];
  }).flat();
  const drops = series.some(({ yAxisIndex }) => yAxisIndex === 1);
  return {
    title: { text: `Expert load of ${run.name} over steps`, ...titleStyle },
    legend: {
      top: 34,
      left: 12,
      itemWidth: 22,
      itemGap: 18,
      type: 'scroll',
      textStyle: { color: inkColour },
    },
    grid: { left: 64, right: drops ? 70 : 24, top: 76, bottom: 52 },
    xAxis: {
      type: 'value',
      min: 0,
      max: 'dataMax',
      name: 'training step',
      nameLocation: 'middle',
      nameGap: 30,
      ...axisStyle,
    },
    yAxis: [
      {
        type: 'value',
        min: 1,
        name: 'largest load / mean load',
        nameLocation: 'middle',
        nameGap: 42,
        ...axisStyle,
      },
      ...(drops
        ? [
            {
              type: 'value' as const,
              min: 0,
              name: 'share of slots dropped',
              nameLocation: 'middle' as const,
              nameGap: 46,
              ...axisStyle,
              splitLine: { show: false },
            },
          ]
        : []),
    ],
    series,
  };
}
