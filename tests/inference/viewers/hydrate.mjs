// What OHIF's library makes of a report and a segmentation: node hydrate.mjs IMAGE REPORT [SEGMENTATION]
//
// Prints JSON: the rectangles of the report, their corners in the world and back in the image's pixels, and what became
// of the segmentation. Metadata of the image are those that a viewer derives of a projection: the plane of the detector.
import fs from 'node:fs';

globalThis.window ??= globalThis;
globalThis.self ??= globalThis;
const dcmjs = (await import('dcmjs')).default;
const { adaptersSR, adaptersSEG } = await import('@cornerstonejs/adapters');
const { metaData, utilities } = await import('@cornerstonejs/core');

function read(path) {
  const bytes = fs.readFileSync(path);
  const file = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(file.dict);
  dataset._meta = dcmjs.data.DicomMetaDictionary.namifyDataset(file.meta);
  return { dataset, bytes };
}

const [imagePath, reportPath, segmentationPath] = process.argv.slice(2);
const image = read(imagePath).dataset;
const imageId = 'image:1';
const [rowSpacing, columnSpacing] = image.PixelSpacing ?? image.ImagerPixelSpacing ?? [1, 1];
const plane = {
  rowCosines: [1, 0, 0],
  columnCosines: [0, 1, 0],
  imagePositionPatient: [0, 0, 0],
  imageOrientationPatient: [1, 0, 0, 0, 1, 0],
  rowPixelSpacing: Number(rowSpacing),
  columnPixelSpacing: Number(columnSpacing),
  pixelSpacing: [Number(rowSpacing), Number(columnSpacing)],
  rows: image.Rows,
  columns: image.Columns,
  frameOfReferenceUID: image.FrameOfReferenceUID ?? '2.25.1',
};
const modules = {
  imagePlaneModule: plane,
  instance: image,
  generalSeriesModule: { modality: image.Modality, seriesInstanceUID: image.SeriesInstanceUID },
  sopCommonModule: { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID },
};
metaData.addProvider((type, id) => (id === imageId ? modules[type] : undefined), 1);

const report = read(reportPath).dataset;
const found = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(
  report,
  { [`${image.SOPInstanceUID}:1`]: imageId },
  metaData
);
const rectangles = (found.RectangleROI ?? []).map(measurement => {
  const data = measurement.annotation.data;
  return {
    label: data.label,
    finding: measurement.finding?.CodeMeaning,
    tracking: measurement.TrackingUniqueIdentifier,
    world: data.handles.points.map(point => Array.from(point)),
    pixels: data.handles.points.map(point => utilities.worldToImageCoords(imageId, point)),
  };
});
const told = { tools: Object.keys(found), rectangles };
if (segmentationPath) {
  try {
    const { bytes } = read(segmentationPath);
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    const state = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer([imageId], buffer, {
      metadataProvider: metaData,
    });
    told.segmentation = { keys: Object.keys(state), segments: state.segMetadata?.data?.filter(Boolean).length };
  } catch (error) {
    told.segmentation = { error: String(error.message ?? error) };
  }
}
console.log(JSON.stringify(told));
process.exit(0);
