  // Element 0 of workgroup memory gets what `merge` makes of all: each lane takes in the one half of them further on.
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { ${merge} }
    workgroupBarrier();
  }
