// The page's viewer: slices, surfaces and the list of organs, drawn from what the page carries; nothing is fetched.
"use strict";
addEventListener("load", () => { // not before: by then the browser has the sheets, and who prints or photographs it waits
  if (!document.getElementById("viewer")) return;
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const organs = new Map(data.organs.map((organ) => [organ.label, { ...organ, shown: true }]));
  const at = data.start.slice();
  const drawSlices = makeSlices(data, organs, at, () => drawSlices()), drawSurfaces = makeSurfaces(data, organs);

  function draw() {
    for (const organ of organs.values()) organ.item.classList.toggle("off", !organ.shown);
    drawSlices();
    drawSurfaces();
  }

  function go(organ) {
    organ.shown = true;
    at.splice(0, 3, ...organ.centre);
    draw();
  }

  function button(text, title, onClick) {
    const made = document.createElement("button");
    made.textContent = text;
    made.title = title;
    made.addEventListener("click", onClick);
    return made;
  }

  function listed(organ) {
    const item = document.createElement("li"), volume = document.createElement("small");
    const swatch = button("", `show or hide ${organ.name}`, () => { organ.shown = !organ.shown; draw(); });
    swatch.style.background = `rgb(${organ.rgb.join(",")})`;
    volume.textContent = organ.ml === undefined ? "" : `${organ.ml} mL`;
    item.append(swatch, button(organ.name, "go there", () => go(organ)), volume);
    item.classList.toggle("check", Boolean(organ.check));
    return item;
  }

  for (const organ of organs.values()) {
    organ.item = listed(organ);
    document.getElementById("organs").append(organ.item);
  }
  for (const [id, wanted] of [["all", () => true], ["none", () => false], ["doubts", (organ) => organ.check]]) {
    document.getElementById(id).addEventListener("click", () => {
      organs.forEach((organ) => { organ.shown = Boolean(wanted(organ)); });
      draw();
    });
  }
  for (const link of document.querySelectorAll("a[data-label]")) {
    const organ = organs.get(Number(link.dataset.label));
    if (organ) link.addEventListener("click", () => go(organ));
  }
  addEventListener("resize", draw);
  draw();
});
