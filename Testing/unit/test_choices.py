from HNSegLib.choices import PARAMETERS, Choices
from HNSegLib.merging import MergePolicy


def test_choices_survive_the_way_through_a_scene():
    chosen = Choices("hnseg-phantom", ("Lips", "SpinalCord"), MergePolicy.ONLY_EMPTY, False, "cuda", True)
    assert Choices.from_parameters(chosen.to_parameters().get) == chosen
    assert Choices.from_parameters(Choices().to_parameters().get) == Choices()


def test_absent_parameters_take_their_defaults():
    assert Choices.from_parameters({}.get) == Choices()


def test_what_another_version_wrote_and_this_one_does_not_know_takes_its_default():
    foreign = {"Organs": "Lips,Spleen", "MergePolicy": "append", "Device": "tpu"}
    assert Choices.from_parameters(foreign.get) == Choices(organs=("Lips",))


def test_no_default_is_empty_as_slicer_would_complain_of_a_missing_parameter():
    assert all(PARAMETERS.values())
