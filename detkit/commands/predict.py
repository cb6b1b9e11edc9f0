"""Find objects in images and videos: annotated pictures, COCO JSON, CSV, YOLO-txt, counts and speed.

detkit predict checkpoint=runs/NAME/TIME source=photos
detkit predict checkpoint=detector.safetensors source='photos/**/*.jpg' save=coco,csv out=found
detkit predict checkpoint=detector.safetensors source=clip.mp4 score_threshold=0.5
source: an image, a folder, a pattern, a .txt with a path in every line, a video, or the number of a camera (ends
with Ctrl-C). out=runs/predict/TIME, save=pictures,coco of pictures, coco, csv and yolo; a video gives a video.
slices=640 overlap=0.2 also looks at windows of 640 pixels, for objects that are small in large images; flip=true also
at the mirrored image.
score_threshold=0.25 max_detections=100 batch_size=8 device=auto; unreadable=stop ends at a file that cannot be read,
skip counts it. annotations=instances.json gives the ids of its images and categories to the COCO JSON.
trusted=my_package lets the checkpoint name your classes.
"""

from detkit import recipe


def main(argv: list[str]) -> None:
    """Look at everything, and say what was found and where it lies."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    from detkit.inference.predict.options import read_options

    options = read_options(argv)
    from detkit.inference.predict.run import prepare  # torch, after the arguments were found right

    prepare(options).run(recipe.console())
