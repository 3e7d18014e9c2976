import * as echarts from 'echarts';
import type { Axis, Plot } from './report.js';

/** A plot as SVG. */
export function draw(plot: Plot): string {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 760, height: 440 });
  const axis = ({ label, log }: Axis, isX: boolean) => ({
    type: log ? ('log' as const) : ('value' as const),
    name: label,
    nameLocation: 'middle' as const,
    nameGap: isX ? 28 : 52,
    ...(log ? { logBase: 10 } : {}),
    ...(isX && log ? edges(plot) : {}),
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: plot.title, left: 'center', textStyle: { fontSize: 14 } },
    legend: { bottom: 0 },
    grid: { left: 80, right: 30, top: 45, bottom: 80 },
    xAxis: axis(plot.x, true),
    yAxis: axis(plot.y, false),
    series: plot.series.map(({ name, points }) => ({ type: 'line' as const, name, data: points, symbolSize: 7 })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** A logarithmic axis would begin and end at powers of ten, far from the points. */
function edges({ series }: Plot): { min: number; max: number } {
  const all = series.flatMap(({ points }) => points.map(([x]) => x));
  return { min: Math.min(...all), max: Math.max(...all) };
}
