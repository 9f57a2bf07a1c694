/** Colours and text styles that all charts share. */

/** Line colours, told apart by people with any colour vision. */
export const colours = ['#0b6fb8', '#d9540d', '#4d8f2f', '#8b4ba8', '#a4781c', '#3c8f94'];

export const inkColour = '#333b44';
const faintColour = '#e3e7eb';

export const titleStyle = {
  left: 12,
  top: 8,
  textStyle: { fontSize: 15, fontWeight: 'bold' as const, color: inkColour },
};

export const axisStyle = {
  nameTextStyle: { color: inkColour, fontSize: 12 },
  axisLabel: { color: inkColour, fontSize: 11 },
  axisLine: { show: true, lineStyle: { color: '#9aa4ae' } },
  splitLine: { lineStyle: { color: faintColour } },
};
