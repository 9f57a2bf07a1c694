import type { EChartsOption } from 'echarts';
import { imbalance } from '../training/metrics/index.js';
import { axisStyle, inkColour, titleStyle } from './theme.js';

/**
 * Load of each expert of each layer as a picture: 1 is an even share, blue is less and orange is more.
 *
 * @param load rows that each expert received, `[layer][expert]`
 */
export function loadHeatmap(name: string, load: readonly (readonly number[])[]): EChartsOption {
  const experts = Math.max(...load.map((layer) => layer.length));
  const shares = load.flatMap((layer, index) => {
    const total = layer.reduce((sum, rows) => sum + rows, 0);
    return layer.map((rows, expert): [number, number, number] => [
      expert,
      index,
      total === 0 ? 0 : (rows * layer.length) / total,
    ]);
  });
  const reach = Math.max(0.5, ...shares.map(([, , share]) => Math.abs(share - 1)));
  const limit = Math.ceil(reach * 10) / 10;
  const uneven = load.map((layer) => imbalance(layer).toFixed(2));
  return {
    title: {
      text: `Expert load of ${name}`,
      subtext: 'rows an expert received, divided by an even share; on the right the largest of each layer',
      subtextStyle: { color: inkColour, fontSize: 11.5 },
      itemGap: 6,
      ...titleStyle,
    },
    grid: { left: 76, right: 96, top: 70, bottom: 84 },
    xAxis: {
      type: 'category',
      data: Array.from({ length: experts }, (_, expert) => `${expert}`),
      name: 'expert',
      nameLocation: 'middle',
      nameGap: 26,
      ...axisStyle,
      splitLine: { show: false },
      axisTick: { show: false },
    },
    yAxis: [
      {
        type: 'category',
        inverse: true,
        data: load.map((_, index) => `layer ${index}`),
        ...axisStyle,
        splitLine: { show: false },
        axisTick: { show: false },
      },
      {
        type: 'category',
        inverse: true,
        position: 'right',
        data: uneven.map((figure) => `max ${figure}`),
        ...axisStyle,
        axisLine: { show: false },
        splitLine: { show: false },
        axisTick: { show: false },
      },
    ],
    visualMap: {
      min: Math.max(0, 1 - limit),
      max: 1 + limit,
      calculable: false,
      orient: 'horizontal',
      left: 'center',
      bottom: 8,
      itemWidth: 12,
      itemHeight: 220,
      text: [`${(1 + limit).toFixed(1)}`, `${Math.max(0, 1 - limit).toFixed(1)}`],
      textStyle: { color: inkColour },
      inRange: { color: ['#2f7fc1', '#a9cfe9', '#f6f6f4', '#f5bd8c', '#d9640d'] },
    },
    series: [
      {
        type: 'heatmap',
        data: shares.map(([expert, layer, share]) => [expert, layer, Number(share.toFixed(4))]),
        label: {
          show: experts <= 32,
          color: inkColour,
          fontSize: experts <= 16 ? 12 : 9,
          formatter: ({ value }) => (value as number[])[2]!.toFixed(2),
        },
        itemStyle: { borderColor: '#ffffff', borderWidth: 2 },
      },
    ],
  };
}

/** Size of the picture of a load of this many layers. */
export function heatmapSize(layers: number): { width: number; height: number } {
  return { width: 860, height: 154 + Math.max(40, Math.min(56, 600 / layers)) * layers };
}
