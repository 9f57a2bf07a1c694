import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import type { EChartsOption } from 'echarts';

/** Size of a picture in CSS pixels. */
export interface PictureSize {
  width: number;
  height: number;
}

/** Draws charts; made by {@link loadRenderer}. */
export interface Renderer {
  /** An SVG document without references to anything outside it. */
  svg(option: EChartsOption, size: PictureSize): string;
  /** The same picture as PNG, `scale` pixels for each CSS pixel. */
  png(svg: string, scale?: number): Uint8Array;
}

/** The font of all text; it comes with the package dejavu-fonts-ttf, so that pictures are equal everywhere. */
export const fontFamily = 'DejaVu Sans';

const packages = ['echarts', '@resvg/resvg-js', 'dejavu-fonts-ttf'];

/**
 * Loads the optional packages that draw.
 *
 * @throws FmoeError ERR_SETUP when one is not installed
 */
export async function loadRenderer(): Promise<Renderer> {
  const echarts = await importOptional(() => import('echarts'));
  const { Resvg } = await importOptional(() => import('@resvg/resvg-js'));
  const fontFolder = await importOptional(async () =>
    dirname(createRequire(import.meta.url).resolve('dejavu-fonts-ttf/ttf/DejaVuSans.ttf')),
  );
  const fontFiles = ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'].map((name) => join(fontFolder, name));
  return {
    svg(option, { width, height }) {
      const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
      try {
        chart.setOption({ animation: false, textStyle: { fontFamily }, ...option });
        return chart.renderToSVGString();
      } finally {
        chart.dispose();
      }
    },
    png(svg, scale = 2) {
      const font = { fontFiles, loadSystemFonts: false, defaultFontFamily: fontFamily };
      return new Resvg(svg, { font, fitTo: { mode: 'zoom', value: scale }, background: '#ffffff' })
        .render()
        .asPng();
    },
  };
}

/**
 * Loads an optional package.
 *
 * @throws FmoeError ERR_SETUP when it is not installed
 */
export async function importOptional<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw cause;
    throw new FmoeError(
      'ERR_SETUP',
      `Pictures need packages that are not installed. Run: npm install ${packages.join(' ')}`,
      { cause },
    );
  }
}
