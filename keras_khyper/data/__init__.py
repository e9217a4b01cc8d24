"""Image-classification data for `model.fit`, deterministic and resumable."""

from keras_khyper.data.augmentation import AugmentedBatches
from keras_khyper.data.cifar import load_cifar10, load_cifar100
from keras_khyper.data.image_data import ImageData
from keras_khyper.data.image_folder import load_image_folder
from keras_khyper.data.image_stream import ImageStream
from keras_khyper.data.image_task import ImageTask
from keras_khyper.data.imagenet import stream_image_folder, stream_imagenet
from keras_khyper.data.imagenet16 import load_imagenet16_120
from keras_khyper.data.imagenet_augmentation import (
    ImageNetAugmentation,
    resize_and_center_crop,
)
from keras_khyper.data.mnist import load_mnist_5k
from keras_khyper.data.registry import load
from keras_khyper.data.training_batches import TrainingBatches

__all__ = [
    "AugmentedBatches",
    "ImageData",
    "ImageNetAugmentation",
    "ImageStream",
    "ImageTask",
    "TrainingBatches",
    "load",
    "load_cifar10",
    "load_cifar100",
    "load_image_folder",
    "load_imagenet16_120",
    "load_mnist_5k",
    "resize_and_center_crop",
    "stream_image_folder",
    "stream_imagenet",
]
