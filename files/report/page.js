// What the page does beyond showing what is written in it: sorting, filters, details, curves, comparison, colours.
// Every text comes from data by textContent. Nothing here asks a network for anything.
'use strict';
(() => {
  const root = document.documentElement;
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const stored = (value) => { // a browser may keep nothing for files
    try {
      if (value !== undefined) localStorage.setItem('theme', value);
      return localStorage.getItem('theme');
    } catch { return null; }
  };

  // --- Colours ---
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const setTheme = (theme) => {
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  root.classList.add('script');
  setTheme(stored());
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // --- What is packed into the page ---
  const unpacked = new Map();
  const unpack = (id) => {
    if (!unpacked.has(id)) {
      unpacked.set(id, (async () => {
        const bytes = Uint8Array.from(atob(one(`#${id}`).textContent), (character) => character.charCodeAt(0));
        return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
      })());
    }
    return unpacked.get(id);
  };
  let runs;
  const data = () => (runs ??= unpack('data').then(JSON.parse));
  let drawing;
  const plotly = () => (drawing ??= unpack('drawing').then((code) => {
    one('head').append(make('script', { textContent: code }));
    return window.Plotly;
  }));

  // --- Curves ---
  const COLOURS = { light: ['#2352b8', '#c2410c', '#0f766e', '#a21caf', '#4d7c0f', '#b8252b', '#0369a1', '#6b5900'],
    dark: ['#8db4ff', '#fb923c', '#5eead4', '#f0abfc', '#bef264', '#fca5a5', '#7dd3fc', '#e9d06a'] };
  const isDark = () => (root.dataset.theme ?? (dark.matches ? 'dark' : 'light')) === 'dark';
  const colours = () => COLOURS[isDark() ? 'dark' : 'light'];
  const shown = new Map(); // element: how to draw it

  // Ticks of a logarithmic axis as people count: 0.1, 0.2, 0.5, 1.
  const TICKS = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  const layout = (across, several) => {
    const axis = { gridcolor: colour('grid'), linecolor: colour('strong-line'), zeroline: false, ticks: '', automargin: true,
      exponentformat: 'power', title: { standoff: 8 } };
    return {
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', showlegend: false,
      font: { family: 'system-ui, sans-serif', size: 12, color: colour('soft') },
      margin: { l: 8, r: 8, t: 12, b: 8 }, hovermode: several ? 'closest' : 'x unified',
      hoverlabel: { bgcolor: colour('surface'), bordercolor: colour('strong-line'), font: { color: colour('ink') }, namelength: 40 },
      xaxis: { ...axis, anchor: 'y2', title: { ...axis.title, text: across }, tickformat: ',~r', hoverformat: ',~r' },
      yaxis: { ...axis, domain: [0.34, 1], type: 'log', title: { ...axis.title, text: 'loss (log)' }, hoverformat: '.4g',
        tickmode: 'array', tickvals: TICKS, ticktext: TICKS.map(String) },
      yaxis2: { ...axis, domain: [0, 0.26], rangemode: 'tozero', title: { ...axis.title, text: 'rate' }, hoverformat: '.4g', nticks: 4, exponentformat: 'none' },
      // A finger scrolls.
      dragmode: matchMedia('(pointer: coarse)').matches ? false : 'zoom',
      modebar: { bgcolor: 'rgba(0,0,0,0)', color: colour('soft'), activecolor: colour('ink') },
    };
  };
  const CONFIG = { displaylogo: false, responsive: true, showTips: false, modeBarButtons: [['resetScale2d', 'toImage']] };

  const draw = async (element, chosen, scaled = false) => {
    const Plotly = await plotly();
    const known = await data();
    if (!element.isConnected) return;
    const several = chosen.length > 1;
    const traces = chosen.flatMap((id, index) => {
      const run = known[id];
      const line = { color: colours()[index % 8], width: 1.6, dash: ['solid', 'dash', 'dot'][Math.floor(index / 8) % 3] };
      const x = scaled ? run.x.map((iteration) => iteration * run.batch) : run.x;
      // Text of a curve's name is markup to plotly.
      const name = several ? `${plain(run.name)} (${plain(run.host)})` : 'loss';
      const base = { x, type: 'scatter', mode: 'lines', connectgaps: false };
      return [
        { ...base, y: run.loss, name, line },
        { ...base, y: run.rate, name: several ? name : 'learning rate', yaxis: 'y2', line: { ...line, shape: 'hv', width: 1.2, ...(several ? {} : { color: colour('soft') }) } },
      ];
    });
    await Plotly.react(element, traces, layout(scaled ? 'images seen' : 'iteration', several), CONFIG);
    shown.set(element, () => draw(element, chosen, scaled));
  };
  const plain = (text) => text.replace(/[<>&]/g, (character) => ({ '<': '‹', '>': '›', '&': '＆' })[character]);
  const failed = (element) => (reason) => {
    console.error(reason);
    element.textContent = 'The curve could not be drawn: this browser is too old, or the page is damaged.';
  };
  const redraw = () => shown.forEach((again, element) => (element.isConnected ? again() : shown.delete(element)));

  // --- Details: a section of the page, moved into a drawer while it is looked at ---
  let lent = null; // [section, where it belongs]
  const put = (content, title) => {
    const drawer = one('#drawer');
    takeBack();
    one('#drawer-body').replaceChildren(content);
    drawer.setAttribute('aria-labelledby', title);
    if (!drawer.open) drawer.showModal();
    drawer.scrollTop = 0;
    one(`#${title}`).focus();
  };
  const takeBack = () => {
    if (lent) lent[1].replaceWith(lent[0]);
    lent = null;
  };
  const open = (id) => {
    const section = document.getElementById(id);
    if (!section?.classList.contains('detail')) return false;
    if (lent?.[0] === section && one('#drawer').open) return true;
    takeBack();
    const place = make('span', { hidden: true });
    section.replaceWith(place);
    put(section, `${id}-title`);
    lent = [section, place];
    const plot = one('.plot', section);
    if (plot) draw(plot, [plot.dataset.run]).catch(failed(plot));
    return true;
  };
  const follow = () => {
    const id = location.hash.slice(1);
    if (!/^(run|server)-[0-9a-f]+$/.test(id) || !open(id)) {
      if (one('#drawer').open) one('#drawer').close();
    }
  };

  // --- Comparison ---
  const picked = () => all('.pick input:checked').map((box) => box.value);
  const showPicked = () => {
    const chosen = picked();
    all('#table tbody tr').forEach((row) => row.classList.toggle('picked', chosen.includes(row.dataset.run)));
    one('#compare-bar').hidden = !chosen.length;
    one('#picked').textContent = `${chosen.length} ${chosen.length === 1 ? 'run' : 'runs'} chosen${chosen.length < 2 ? ': choose another' : ''}`;
    one('#compare').disabled = chosen.length < 2;
  };
  const table = (caption, ids, known, rows) => {
    const names = ids.map((id) => make('th', { scope: 'col' }, make('bdi', { textContent: known[id].name })));
    const body = rows.map(([name, values]) => make('tr', { className: new Set(values).size > 1 ? 'differs' : '' },
      make('th', { scope: 'row', textContent: name }), ...values.map((value) => make('td', { textContent: value }))));
    const wide = make('div', { className: 'wide', tabIndex: 0 }, make('table', { className: 'small compared' },
      make('caption', { className: 'sr', textContent: caption }), make('thead', {}, make('tr', {}, make('td'), ...names)), make('tbody', {}, ...body)));
    wide.setAttribute('role', 'region');
    wide.setAttribute('aria-label', caption);
    return wide;
  };
  const figure = (value) => (value === null || value === undefined ? '–' : String(+value.toPrecision(4)));
  const merged = (ids, lists) => [...new Set(ids.flatMap((id, index) => lists[index].map(([name]) => name)))];
  const compare = async () => {
    const known = await data();
    const ids = picked();
    const of = (list, name) => list.find(([key]) => key === name);
    const options = ids.map((id) => known[id].differences);
    const schedules = ids.map((id) => known[id].schedule);
    const results = ids.map((id) => known[id].results);
    const baseline = (name) => options.map((list) => of(list, name)?.[1]).find((value) => value !== undefined) ?? '–';
    const changed = [
      ['config', ids.map((id) => known[id].config || '–')],
      ...merged(ids, schedules).map((name) => [name, schedules.map((list) => of(list, name)?.[1] ?? '–')]),
      ...merged(ids, options).filter((name) => !schedules.some((list) => of(list, name)))
        .map((name) => [name, options.map((list) => of(list, name)?.[2] ?? baseline(name))]),
    ];
    const outcomes = [
      ['state', ids.map((id) => known[id].state)],
      ['iteration', ids.map((id) => figure(known[id].final[2]))],
      ['last loss', ids.map((id) => figure(known[id].final[0]))],
      ['least loss', ids.map((id) => figure(known[id].final[1]))],
      ...merged(ids, results).map((name) => [name, results.map((list) => figure(of(list, name)?.[1]))]),
    ];
    const curved = ids.filter((id) => known[id].x.length);
    const plot = make('div', { className: 'plot' });
    plot.setAttribute('role', 'img');
    plot.setAttribute('aria-label', `Loss curves of ${curved.length} runs`);
    const legend = make('ul', { className: 'legend' }, ...curved.map((id, index) => make('li', {},
      make('span', { className: `swatch dash-${Math.floor(index / 8) % 3}`, style: `color: ${colours()[index % 8]}` }),
      make('bdi', { textContent: known[id].name }), make('small', {}, ' on ', make('bdi', { textContent: known[id].host })))));
    const scale = make('select', { id: 'scale' }, make('option', { value: '', textContent: 'iterations' }), make('option', { value: 'images', textContent: 'images seen' }));
    scale.disabled = !curved.every((id) => known[id].batch);
    scale.addEventListener('change', () => draw(plot, curved, scale.value === 'images').catch(failed(plot)));
    put(make('section', { className: 'detail' },
      make('h3', { id: 'comparison', tabIndex: -1, textContent: `${ids.length} runs compared` }),
      ...(curved.length ? [make('p', { className: 'across' }, make('label', { htmlFor: 'scale', textContent: 'Against' }), scale), legend, plot] : []),
      make('h4', {}, 'Results ', make('small', { textContent: 'rows that differ are tinted' })), table('Results', ids, known, outcomes),
      make('h4', {}, 'Configuration ', make('small', { textContent: 'schedules, and what differs from the baselines' })),
      table('Configuration', ids, known, changed)), 'comparison');
    if (curved.length) draw(plot, curved).catch(failed(plot));
  };

  // --- Tables ---
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const sort = (table, header, direction) => {
    const column = header.cellIndex;
    const numeric = header.matches('.number, .amount');
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
    const empty = (value) => value === '' || value === '-1';
    const sign = direction === 'ascending' ? 1 : -1;
    rows.sort(([a], [b]) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // what has no value comes last, in both directions
      return sign * (numeric ? a - b : a.localeCompare(b, 'en', { numeric: true }));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    all('[aria-sort]', table).forEach((other) => other.setAttribute('aria-sort', other === header ? direction : 'none'));
  };
  const sortable = (table) => {
    for (const header of all('th[aria-sort]', table)) {
      const button = make('button', { type: 'button', textContent: header.textContent });
      header.replaceChildren(button);
      button.addEventListener('click', () => {
        const first = header.matches('.number, .amount') || header.textContent === 'Started' ? 'descending' : 'ascending';
        const second = first === 'ascending' ? 'descending' : 'ascending';
        sort(table, header, header.getAttribute('aria-sort') === first ? second : first);
      });
    }
  };

  const filter = () => {
    const words = one('#search').value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = all('.chip[aria-pressed=true]').map((chip) => chip.dataset.state);
    const kind = one('#kind').value;
    const server = one('#server').value;
    let count = 0;
    const rows = all('#table tbody tr');
    for (const row of rows) {
      row.dataset.words ??= row.textContent.toLowerCase();
      row.hidden = !((!states.length || states.includes(row.dataset.state)) && (!kind || row.dataset.kind === kind)
        && (!server || row.dataset.server === server) && words.every((word) => row.dataset.words.includes(word)));
      count += !row.hidden;
    }
    one('#shown').textContent = count === rows.length ? `${count} ${count === 1 ? 'run' : 'runs'}` : `${count} of ${rows.length} runs`;
    one('#nothing').hidden = count > 0;
    one('#table').hidden = !count;
  };

  addEventListener('DOMContentLoaded', () => {
    const written = new Date(+one('#written').getAttribute('datetime') * 1000);
    one('#written').dateTime = written.toISOString();
    const minutes = Math.round((Date.now() - written) / 60000);
    if (minutes > 1) {
      const words = minutes < 100 ? `${minutes} min` : minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
      one('#age').textContent = ` (${words} ago)`;
      one('#age').classList.toggle('old', minutes > 1440);
    }

    const press = () => all('.switch button').forEach((button) => button.setAttribute('aria-pressed', button.dataset.theme === (root.dataset.theme ?? 'auto')));
    press();
    all('.switch button').forEach((button) => button.addEventListener('click', () => {
      setTheme(button.dataset.theme);
      stored(button.dataset.theme);
      press();
      redraw();
    }));
    dark.addEventListener('change', redraw);

    all('.sortable').forEach(sortable);
    one('#more-attention')?.addEventListener('click', (event) => {
      const opened = one('.attention').classList.toggle('all');
      event.target.setAttribute('aria-expanded', opened);
      event.target.textContent = opened ? 'Show fewer' : `Show all ${all('.attention li').length}`;
    });

    const drawer = one('#drawer');
    drawer.addEventListener('close', () => {
      takeBack();
      one('#drawer-body').replaceChildren();
      const row = location.hash.slice(1);
      if (/^(run|server)-/.test(row)) {
        history.replaceState(null, '', location.pathname + location.search);
        one(`.sortable a[href="#${CSS.escape(row)}"]`)?.focus({ preventScroll: true });
      }
    });
    drawer.addEventListener('click', (event) => event.target === drawer && drawer.close());
    one('#close').addEventListener('click', () => drawer.close());
    drawer.addEventListener('click', (event) => event.target.closest('a[href="#pictures"]') && drawer.close());
    addEventListener('hashchange', follow);
    document.addEventListener('click', (event) => {
      // The same link again changes no address.
      const link = event.target.closest('a[href^="#"]');
      if (link && link.getAttribute('href') === location.hash) follow();
    });

    if (one('#table')) {
      const order = one('#order');
      all('#table th[aria-sort]').forEach((header, index) => order.append(make('option', { value: index, textContent: header.textContent })));
      order.prepend(make('option', { value: '', textContent: '–', selected: true }));
      order.addEventListener('change', () => order.value && one('button', all('#table th[aria-sort]')[order.value]).click());
      one('#search').addEventListener('input', filter);
      one('#kind').addEventListener('change', filter);
      one('#server').addEventListener('change', filter);
      all('.chip').forEach((chip) => chip.addEventListener('click', () => {
        chip.setAttribute('aria-pressed', chip.getAttribute('aria-pressed') !== 'true');
        filter();
      }));
      one('#reset').addEventListener('click', () => {
        one('#search').value = one('#kind').value = one('#server').value = '';
        all('.chip').forEach((chip) => chip.setAttribute('aria-pressed', 'false'));
        filter();
        one('#search').focus();
      });
      all('.pick input').forEach((box) => box.addEventListener('change', showPicked));
      one('#compare').addEventListener('click', compare);
      one('#unpick').addEventListener('click', () => {
        all('.pick input:checked').forEach((box) => { box.checked = false; });
        showPicked();
      });
      filter();
      showPicked(); // a browser may have kept what was chosen before the page was loaded again
    }
    follow();
    root.dataset.ready = 'true';
  });
})();
