// Three linked slices: gray values of the page's sheets, tinted where an organ is, with a crosshair that can be moved.
"use strict";
function makeSlices(data, organs, at, onMove) {
  const [nx, ny, nz] = data.size, byId = (id) => document.getElementById(id);
  const [ct, labels, mr] = ["ct", "labels", "mr"].map((name) => byId(`sheet-${name}`)).map((sheet) => sheet && values(sheet));
  const square = Math.max(1, Math.round(25 / data.spacing_mm));
  const planes = {
    axial: { w: nx, h: ny, across: 0, down: 1, through: 2, index: (u, v) => (at[2] * ny + v) * nx + u },
    coronal: { w: nx, h: nz, across: 0, down: 2, through: 1, index: (u, v) => ((nz - 1 - v) * ny + at[1]) * nx + u },
    sagittal: { w: ny, h: nz, across: 1, down: 2, through: 0, index: (u, v) => ((nz - 1 - v) * ny + u) * nx + at[0] },
  };

  // Slices come as tiles of one picture, in rows from the lowest; the red channel holds the value.
  function values(sheet) {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
    [canvas.width, canvas.height] = [sheet.naturalWidth, sheet.naturalHeight];
    context.drawImage(sheet, 0, 0);
    const found = new Uint8Array(nx * ny * nz);
    for (let k = 0; k < nz; k++) {
      const tile = context.getImageData((k % data.columns) * nx, Math.floor(k / data.columns) * ny, nx, ny).data;
      for (let n = 0; n < nx * ny; n++) found[k * nx * ny + n] = tile[4 * n];
    }
    return found;
  }

  const labelAt = (n) => Math.round(labels[n] / data.label_step);
  const share = (id) => Number(byId(id).value) / 100;
  const rowOf = (plane, value) => (plane.down === 2 ? nz - 1 - value : value);
  const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.round(value)));

  // How gray a voxel is: the CT in the chosen window, faded into the MR or taking turns with it, where there is MR.
  function shades() {
    const [low, high] = data.windows_hu[byId("window").value];
    const shown = data.hu_of_gray.map((hu) => Math.max(0, Math.min(255, (255 * (hu - low)) / (high - low))));
    if (!mr) return (n) => shown[ct[n]];
    const floor = data.mr_floor, blend = share("blend"), squares = byId("squares").checked;
    const other = (u, v) => (Math.floor(u / square) + Math.floor(v / square)) % 2;
    return (n, u, v) => {
      const part = mr[n] < floor / 2 ? 0 : squares ? other(u, v) : blend;
      return shown[ct[n]] * (1 - part) + (255 * (mr[n] - floor) * part) / (255 - floor);
    };
  }

  function drawPlane(name, shade) {
    const plane = planes[name], { w, h } = plane, strength = share("strength"), image = new ImageData(w, h);
    const here = new Uint8Array(w * h);
    for (let v = 0; v < h; v++) for (let u = 0; u < w; u++) here[v * w + u] = labelAt(plane.index(u, v));
    const onRim = (p, u, v) => u === 0 || v === 0 || [p - 1, p + 1, p - w, p + w].some((q) => here[q] !== here[p]);
    for (let v = 0; v < h; v++) for (let u = 0; u < w; u++) {
      const p = v * w + u, organ = organs.get(here[p]), gray = shade(plane.index(u, v), u, v);
      const part = organ && organ.shown ? strength * (onRim(p, u, v) ? 1 : 0.45) : 0;
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = part ? organ.rgb[c] * part + gray * (1 - part) : gray;
      image.data[4 * p + 3] = 255;
    }
    paint(byId(name), plane, image);
  }

  // The slice keeps its shape and is centred in the square pane.
  function fit(canvas, plane) {
    const side = canvas.clientWidth * devicePixelRatio, scale = side / Math.max(plane.w, plane.h);
    return { side, scale, left: (side - plane.w * scale) / 2, top: (side - plane.h * scale) / 2 };
  }

  function paint(canvas, plane, image) {
    const small = document.createElement("canvas"), { side, scale, left, top } = fit(canvas, plane);
    [small.width, small.height] = [plane.w, plane.h];
    small.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, left, top, plane.w * scale, plane.h * scale);
    context.strokeStyle = "rgba(255, 221, 120, .45)";
    const x = left + (at[plane.across] + 0.5) * scale, y = top + (rowOf(plane, at[plane.down]) + 0.5) * scale;
    context.beginPath();
    context.moveTo(x, top); context.lineTo(x, top + plane.h * scale);
    context.moveTo(left, y); context.lineTo(left + plane.w * scale, y);
    context.stroke();
  }

  function draw() {
    const shade = shades(), n = (at[2] * ny + at[1]) * nx + at[0], organ = organs.get(labelAt(n));
    Object.keys(planes).forEach((name) => drawPlane(name, shade));
    const mm = at.map((index, axis) => (data.origin_lps[axis] + index * data.spacing_mm).toFixed(0)).join(", ");
    byId("place").textContent = `LPS ${mm} mm · about ${data.hu_of_gray[ct[n]]} HU${organ ? " · " + organ.name : ""}`;
  }

  // Pointer: moves the crosshair. Wheel and arrow keys: through the slices, once the pane was clicked, lest the page stop
  // scrolling under the pointer.
  function bind(name) {
    const plane = planes[name], canvas = byId(name);
    const point = (event) => {
      const { scale, left, top } = fit(canvas, plane);
      at[plane.across] = clamp((event.offsetX * devicePixelRatio - left) / scale - 0.5, data.size[plane.across]);
      at[plane.down] = clamp(rowOf(plane, (event.offsetY * devicePixelRatio - top) / scale - 0.5), data.size[plane.down]);
      onMove();
    };
    const step = (event, by) => {
      event.preventDefault();
      at[plane.through] = clamp(at[plane.through] + by, data.size[plane.through]);
      onMove();
    };
    canvas.addEventListener("pointerdown", (event) => { point(event); canvas.focus(); canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement === canvas) step(event, -Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.key === "ArrowUp" || event.key === "ArrowDown") step(event, event.key === "ArrowUp" ? 1 : -1);
    });
  }

  Object.keys(planes).forEach(bind);
  for (const id of ["window", "strength", "blend", "squares"]) byId(id)?.addEventListener("input", draw);
  return draw;
}
