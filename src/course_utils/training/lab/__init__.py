"""What the lab scripts share: recipes, the language-model lab, recorded runs."""
