// Draws a dashboard and the answers to its queries with Grafana's own components (@grafana/ui, @grafana/data).
import React from 'react';
import { createRoot } from 'react-dom/client';
import * as D from '@grafana/data';
import { lastValueFrom } from 'rxjs';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, PanelContextProvider, PortalContainer, Table, TimeSeries } from '@grafana/ui';

const { dashboard, results, range, theme: mode } = (window as any).__INPUT__;
const theme = D.createTheme({ colors: { mode } });
D.setTimeZoneResolver?.(() => 'utc');

// What Grafana's core registers for every field: how each option in the JSON is read.
const item = (id: string, process: any, path = id) =>
  ({ id, path, name: id, editor: () => null, override: () => null, process, settings: {}, shouldApply: () => true } as any);
const options = [
  item('displayName', D.displayNameOverrideProcessor), item('unit', D.unitOverrideProcessor),
  item('min', D.numberOverrideProcessor), item('max', D.numberOverrideProcessor),
  item('decimals', D.numberOverrideProcessor), item('thresholds', D.thresholdsOverrideProcessor),
  item('mappings', D.valueMappingsOverrideProcessor), item('noValue', D.identityOverrideProcessor),
  item('color', D.identityOverrideProcessor), item('links', D.identityOverrideProcessor),
  item('description', D.identityOverrideProcessor), item('fieldMinMax', D.identityOverrideProcessor),
];
D.standardFieldConfigEditorRegistry.setInit(() => options);
const transformers = new Map(Object.values(D.standardTransformers).map((t: any) => [t.id, t])); // some are there twice
D.standardTransformersRegistry.setInit(() => [...transformers.values()].map((t: any) => ({ id: t.id, name: t.name, transformation: () => Promise.resolve(t), editor: () => null, imageDark: '', imageLight: '' }) as any));
const custom = (path: string) => ({ ...item(`custom.${path}`, D.identityOverrideProcessor, path), isCustom: true });
const registry = new D.FieldConfigOptionsRegistry(() => [
  ...options,
  ...['drawStyle', 'lineWidth', 'fillOpacity', 'gradientMode', 'showPoints', 'pointSize', 'lineInterpolation', 'lineStyle', 'barAlignment',
    'spanNulls', 'stacking', 'axisLabel', 'axisPlacement', 'axisColorMode', 'axisSoftMin', 'axisSoftMax', 'scaleDistribution',
    'thresholdsStyle', 'hideFrom', 'width', 'align', 'cellOptions', 'filterable', 'inspect'].map(custom),
]);

const timeRange: any = { from: D.dateTime(range.from), to: D.dateTime(range.to), raw: { from: D.dateTime(range.from), to: D.dateTime(range.to) } };

const graph = new Set(['timeseries']);
const graphDefaults = { drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', barAlignment: 0,
  spanNulls: false, showPoints: 'auto', pointSize: 5, stacking: { mode: 'none', group: 'A' }, axisPlacement: 'auto', axisLabel: '',
  axisColorMode: 'text', axisBorderShow: false, axisCenteredZero: false, scaleDistribution: { type: 'linear' },
  hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: 'off' } };

// As Grafana's Prometheus data source does: a step without a sample is null, so that the line is broken.
function gaps(samples: any[]) {
  const at = new Map(samples.map((p) => [Math.round(p[0] * 1000), p]));
  const all = [];
  for (let t = range.from; t <= range.to; t += range.step * 1000) all.push(at.get(Math.round(t)) ?? [t / 1000, null]);
  return all;
}

async function frames(panel: any): Promise<D.DataFrame[]> {
  let raw: D.DataFrame[] = [];
  for (const t of panel.targets ?? []) {
    const r = results[`${panel.id}/${t.refId}`];
    if (!r || r.error) continue;
    if (t.format === 'table') {
      const labels = [...new Set(r.data.flatMap((s: any) => Object.keys(s.metric)))] as string[];
      raw.push(D.toDataFrame({ refId: t.refId, fields: [
        { name: 'Time', type: D.FieldType.time, values: r.data.map((s: any) => (s.value ?? s.values.at(-1))[0] * 1000) },
        ...labels.map((l) => ({ name: l, type: D.FieldType.string, values: r.data.map((s: any) => s.metric[l]) })),
        // Grafana names it so where there are several queries.
        { name: panel.targets.length > 1 ? `Value #${t.refId}` : 'Value', type: D.FieldType.number, values: r.data.map((s: any) => +(s.value ?? s.values.at(-1))[1]) },
      ] }));
      continue;
    }
    for (const s of r.data) {
      if (!s.values && !s.value) continue; // a native histogram
      const points = s.values ? gaps(s.values) : [s.value];
      const name = t.legendFormat && t.legendFormat !== '__auto' ? t.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_: string, l: string) => s.metric[l] ?? '') : undefined;
      raw.push(D.toDataFrame({ refId: t.refId, name, fields: [
        { name: 'Time', type: D.FieldType.time, values: points.map((p: any) => p[0] * 1000) },
        { name: 'Value', type: D.FieldType.number, labels: s.metric, values: points.map((p: any) => (p[1] === null ? null : +p[1])), config: name ? { displayNameFromDS: name } : {} },
      ] }));
    }
  }
  if (panel.transformations?.length) raw = await lastValueFrom(D.transformDataFrame(panel.transformations, raw));
  const defaults = panel.fieldConfig?.defaults ?? {};
  const fieldConfig = { overrides: panel.fieldConfig?.overrides ?? [],
    defaults: graph.has(panel.type) ? { color: { mode: 'palette-classic' }, ...defaults, custom: { ...graphDefaults, ...defaults.custom } } : { color: { mode: 'thresholds' }, ...defaults } };
  return D.applyFieldOverrides({ data: raw, fieldConfig, fieldConfigRegistry: registry as any, replaceVariables: (v: string) => v, theme, timeZone: 'utc' });
}

// A heat map's columns: at each time, of each bucket its upper bound and what it has, from either kind of histogram.
function columns(panel: any): [number, Map<number, number>][] {
  const at = new Map<number, Map<number, number>>();
  const put = (t: number, bound: number, value: number) => {
    if (!at.has(t)) at.set(t, new Map());
    const column = at.get(t)!;
    column.set(bound, (column.get(bound) ?? 0) + value);
  };
  for (const t of panel.targets ?? []) {
    const data = results[`${panel.id}/${t.refId}`]?.data ?? [];
    for (const s of data) for (const [time, h] of s.histograms ?? []) for (const b of h.buckets ?? []) put(time, +b[2], +b[3]);
    const bound = (s: any) => (s.metric.le === '+Inf' ? Infinity : +s.metric.le);
    const classic = data.filter((s: any) => s.metric.le && s.values).sort((a: any, b: any) => bound(a) - bound(b));
    const below = new Map<number, number>();
    for (const s of classic) {
      for (const [time, v] of s.values) {
        const cumulative = +v;
        put(time, bound(s), Math.max(0, cumulative - (below.get(time) ?? 0)));
        below.set(time, cumulative);
      }
    }
  }
  return [...at].sort((a, b) => a[0] - b[0]);
}

const text = { fontSize: 11, fill: theme.colors.text.secondary, fontFamily: theme.typography.fontFamily };
const clock = (t: number) => new Date(t * 1000).toISOString().slice(11, 19);
const left = 70, bottom = 20;
const x = (t: number, width: number) => left + ((t - range.from / 1000) / ((range.to - range.from) / 1000)) * (width - left);
function Times({ width, height }: any) {
  const ticks = [0.1, 0.3, 0.5, 0.7, 0.9].map((part) => (range.from + part * (range.to - range.from)) / 1000);
  return <>{ticks.map((t) => <text key={t} x={x(t, width)} y={height - 5} textAnchor="middle" {...text}>{clock(t)}</text>)}</>;
}

// Not Grafana's: it has no component for it.
function HeatMap({ panel, width, height }: any) {
  const all = columns(panel);
  const bounds = [...new Set(all.flatMap(([, c]) => [...c].filter(([, v]) => v > 0).map(([b]) => b)))].sort((a, b) => a - b);
  const most = Math.max(...all.flatMap(([, c]) => [...c.values()]));
  if (!bounds.length) return <div style={{ height, display: 'grid', placeItems: 'center' }}>No data</div>;
  const h = (height - bottom) / bounds.length, w = Math.max(1, (width - left) / ((range.to - range.from) / 1000 / range.step) - 0.5);
  const seconds = D.getValueFormat('s');
  const name = (b: number) => (Number.isFinite(b) ? D.formattedValueToString(seconds(b, 1)) : 'more');
  return <svg width={width} height={height}>
    {all.flatMap(([t, c]) => bounds.map((b, i) => c.get(b)! > 0 && <rect key={`${t} ${b}`} x={x(t, width) - w} y={height - bottom - (i + 1) * h} width={w} height={h - 1}
      fill="rgb(255, 152, 48)" fillOpacity={0.12 + 0.88 * Math.sqrt(c.get(b)! / most)} />))}
    {bounds.map((b, i) => (bounds.length < 12 || i % 2 === 1) && <text key={b} x={left - 6} y={height - bottom - (i + 0.3) * h} textAnchor="end" {...text}>{name(b)}</text>)}
    <Times width={width} height={height} />
  </svg>;
}

function States({ data, width, height }: any) {
  const h = Math.min(30, (height - bottom) / data.length);
  return <svg width={width} height={height}>
    {data.flatMap((f: D.DataFrame, row: number) => {
      const [time, value] = f.fields, w = Math.max(1, (width - left) / ((range.to - range.from) / 1000 / range.step) + 0.5);
      const on = time.values.map((t: number, i: number) => value.values[i] === 1 && <rect key={`${row} ${t}`} x={x(t / 1000, width)} y={row * h + 2} width={w} height={h - 4} fill="rgb(242, 73, 92)" />);
      return [...on, <text key={`${row} name`} x={4} y={row * h + h / 2 + 4} {...text} fill={theme.colors.text.primary}>{D.getFieldDisplayName(value, f)}</text>];
    })}
    <Times width={width} height={height} />
  </svg>;
}

function Body({ panel, data, width, height }: any) {
  if (panel.type === 'text') return <div dangerouslySetInnerHTML={{ __html: D.renderMarkdown(panel.options?.content ?? '') }} />;
  const o = panel.options ?? {};
  if (panel.type === 'heatmap') return <HeatMap panel={panel} width={width} height={height} />;
  if (!data.length || data.every((f) => !f.length)) return <div data-empty={panel.id} style={{ height, display: 'grid', placeItems: 'center' }}>No data</div>;
  if (panel.type === 'state-timeline') return <States data={data} width={width} height={height} />;
  if (panel.type === 'timeseries') {
    const legend = { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [], ...o.legend };
    return <TimeSeries frames={data} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={legend} options={o} />;
  }
  if (['stat', 'gauge', 'bargauge'].includes(panel.type)) {
    const values = D.getFieldDisplayValues({ fieldConfig: panel.fieldConfig ?? { defaults: {}, overrides: [] }, data, theme, timeZone: 'utc',
      reduceOptions: { calcs: ['lastNotNull'], ...o.reduceOptions }, replaceVariables: (v: string) => v, sparkline: panel.type === 'stat' && o.graphMode !== 'none' });
    const w = Math.floor(width / values.length), h = Math.min(40, Math.floor((height - 4 * values.length) / values.length));
    const bars = panel.type !== 'stat';
    return <div style={{ display: 'flex', flexDirection: bars ? 'column' : 'row', gap: bars ? 4 : 0 }}>{values.map((v: any, i: number) => !bars
      ? <BigValue key={i} width={w} height={height} value={v.display} sparkline={v.sparkline} theme={theme} count={values.length}
          colorMode={o.colorMode ?? 'value'} graphMode={o.graphMode ?? 'area'} justifyMode={o.justifyMode ?? 'auto'} textMode={o.textMode ?? 'auto'} />
      : <BarGauge key={i} width={width} height={h} value={v.display} field={v.field} theme={theme} display={v.view?.getFieldDisplayProcessor(v.colIndex)}
          orientation={D.VizOrientation.Horizontal} displayMode={(o.displayMode ?? 'gradient') as any} />)}</div>;
  }
  if (panel.type === 'table') return <Table data={data[0]} width={width} height={height} timeRange={timeRange} />;
  return <div data-unsupported={panel.type}>panel type “{panel.type}” is not drawn here</div>;
}

const W = 1600, cell = 30, gap = 8, col = (W - gap) / 24;
const panels = dashboard.panels.flatMap((p: any) => (p.type === 'row' ? [p, ...(p.panels ?? [])] : [p]));
function App({ data }: any) {
  return (
    <D.ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PortalContainer />
      <h3 style={{ padding: 8, margin: 0 }}>{dashboard.title}</h3>
      <div style={{ position: 'relative' }}>
        {panels.map((p: any) => {
          const g = p.gridPos, width = g.w * col - gap, height = g.h * (cell + gap) - gap;
          const at: any = { position: 'absolute', left: gap + g.x * col, top: g.y * (cell + gap), width, height };
          if (p.type === 'row') return <h5 key={p.id} style={at}>▾ {p.title}</h5>;
          const bad = (p.targets ?? []).map((t: any) => results[`${p.id}/${t.refId}`]?.error).find(Boolean);
          return <div key={p.id} style={at}><PanelChrome title={p.title} description={p.description} width={width} height={height} statusMessage={bad}>
            {(w: number, h: number) => <Body panel={p} data={data.get(p.id)} width={w} height={h} />}</PanelChrome></div>;
        })}
      </div>
    </D.ThemeContext.Provider>
  );
}
const shown = panels.filter((p: any) => p.type !== 'row').map(async (p: any) => [p.id, await frames(p)] as const);
Promise.all(shown).then((all) => createRoot(document.getElementById('root')!).render(<App data={new Map(all)} />));
